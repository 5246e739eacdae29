//! What survives: `fsync` of files, and partial files that become whole.

use std::io;
use std::sync::Arc;

use super::content::{Content, Layer};
use super::layers::Layers;
use super::record::Kept;

impl Layers {
    /// Makes everything that was written to a file durable, and which of its blocks are here.
    pub(super) fn sync(&self, content: &Arc<Content>) -> io::Result<()> {
        let (layer, file, is_whole) = {
            let body = content.look();
            (body.layer, body.file.clone(), body.presence.is_whole())
        };
        let Some(file) = file else {
            // Nothing was written, or it was closed: then only the record may be behind.
            return match layer {
                Layer::Lower | Layer::Whole => Ok(()),
                Layer::Partial => self.sync_closed(content),
            };
        };
        if layer == Layer::Whole || content.is_unlinked() {
            return file.sync_data();
        }
        if is_whole {
            return self.settle(content);
        }
        self.note(content)
    }

    fn sync_closed(&self, content: &Arc<Content>) -> io::Result<()> {
        let Some(origin) = content.origin() else {
            return Ok(());
        };
        self.open(content, &origin.path)?;
        let synced = self.sync(content);
        self.close(content);
        synced
    }

    /// Records which blocks of a partial file are here, after they are durable.
    fn note(&self, content: &Content) -> io::Result<()> {
        let Some(origin) = content.origin() else {
            return Ok(());
        };
        let mut generation = content.note();
        let is_behind = content.take_unnoted();
        let noted = (|| {
            let (file, presence) = {
                let body = content.look();
                (body.file.clone(), body.presence.clone())
            };
            if let Some(file) = file {
                file.sync_data()?;
            }
            if !is_behind {
                return Ok(());
            }
            let kept = Kept {
                presence,
                cut: None,
                generation: generation.saturating_add(1),
            };
            self.write_note(origin, &kept)?;
            *generation = kept.generation;
            Ok(())
        })();
        if is_behind && noted.is_err() {
            content.set_unnoted();
        }
        noted
    }

    /// Makes a partial file of which everything is here a file of the data directory, durably.
    pub(super) fn settle(&self, content: &Arc<Content>) -> io::Result<()> {
        let Some(origin) = content.origin() else {
            return Ok(());
        };
        if let Some(file) = content.look().file.clone() {
            // The most of it happens while others read and write.
            file.sync_data()?;
        }
        let _turn = content.note();
        let mut body = content.change();
        if body.layer != Layer::Partial || !body.presence.is_whole() || content.is_unlinked() {
            return Ok(());
        }
        let file = self.file(content, &mut body)?;
        file.sync_all()?;
        self.overlay.settle(&origin.path)?;
        body.layer = Layer::Whole;
        if body.opens == 0 {
            body.file = None;
        }
        self.partials().remove(&origin.path);
        Ok(())
    }

    /// Brings all of a file into the data directory.
    pub(super) fn complete(&self, content: &Arc<Content>, path: &str) -> io::Result<()> {
        if content.look().layer == Layer::Whole {
            return Ok(());
        }
        self.open(content, path)?;
        let done = (|| {
            let length = content.look().length;
            self.fetch(content, &(0..length))?;
            // An empty file has no block that could have brought it here.
            let mut body = content.change();
            self.file(content, &mut body)?;
            drop(body);
            self.settle(content)
        })();
        self.close(content);
        done
    }

    /// Records everything that is here, of all files: nothing has to be fetched twice.
    pub(super) fn note_all(&self) -> io::Result<()> {
        let all: Vec<_> = self.partials().values().cloned().collect();
        for content in all {
            self.sync(&content)?;
        }
        self.overlay.sync_names()
    }
}
