//! What a person sees while a replay is played: one line for each thing that happens.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::Output;

/// Tells what happens, with the seconds since the beginning.
#[derive(Clone, Debug)]
pub struct Progress {
    output: Output,
    started: Instant,
    spinner: Option<ProgressBar>,
}

impl Progress {
    /// Begins to count.
    pub fn begin(output: Output) -> Self {
        let spinner = output.draws().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let spinner = ProgressBar::new_spinner().with_style(style);
            spinner.enable_steady_tick(TICK);
            spinner
        });
        Self {
            output,
            started: Instant::now(),
            spinner,
        }
    }

    /// Says that an act begins.
    pub fn act(&self, name: &str, about: &str) {
        self.line(&format!("\n== {name}: {about}"));
    }

    /// Says what happened; `who` did it.
    pub fn say(&self, who: &str, what: &str) {
        self.line(&format!("{:7.1} s  {who:<9} {what}", self.seconds()));
    }

    /// Says what is being waited for, where somebody watches.
    pub fn wait(&self, who: &str, what: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(format!("{who}: {what} …")),
            None => self.say(who, what),
        }
    }

    /// Ends the drawing.
    pub fn end(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn line(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| self.output.say(text)),
            None => self.output.say(text),
        }
    }
}

const TICK: Duration = Duration::from_millis(120);
