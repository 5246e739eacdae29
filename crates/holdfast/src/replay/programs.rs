//! The programs of the stack: ours beside our own executable, the system's by PATH.

use std::path::{Path, PathBuf};

use super::trouble::Trouble;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Ourselves, called as a user would.
    pub holdfast: PathBuf,
    /// The stand-in for the provider.
    pub provider: PathBuf,
    /// The rental office.
    pub rental: PathBuf,
}

impl Programs {
    /// Finds them all.
    ///
    /// # Errors
    /// [`Trouble::Absent`] and [`Trouble::NoTool`], before anything is started.
    pub fn find() -> Result<Self, Trouble> {
        let holdfast =
            std::env::current_exe().map_err(Trouble::system("find the running program"))?;
        let folder = holdfast.parent().unwrap_or(Path::new("."));
        for name in ["sh", "curl", "grep"] {
            on_path(name).ok_or(Trouble::NoTool(name))?;
        }
        Ok(Self {
            provider: beside(folder, "railway-stand-in")?,
            rental: beside(folder, "rental")?,
            holdfast,
        })
    }
}

fn beside(folder: &Path, name: &'static str) -> Result<PathBuf, Trouble> {
    let path = folder.join(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(Trouble::Absent {
            name,
            folder: folder.to_owned(),
        }),
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::{Code, Coded};

    #[test]
    fn an_absent_program_is_named_with_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = beside(folder.path(), "rental").unwrap_err();
        assert_eq!(error.code(), Code::ZU702);
        assert!(error.to_string().contains("`rental` is not in"), "{error}");
        assert!(
            error
                .hint()
                .unwrap()
                .contains("cargo build --workspace --bins")
        );
        std::fs::write(folder.path().join("rental"), "").unwrap();
        assert!(beside(folder.path(), "rental").is_ok());
    }
}
