//! Which objects a restore point needs besides its manifest and the log.

use holdfast_store::object::ObjectKey;

use super::{Has, Point};
use crate::repository::format::Format;
use crate::repository::map::key::{self, MapKey};
use crate::repository::{RepositoryError, layout};

impl Point {
    /// Returns the bundles and the parts of the block map that the point refers to, its own and those
    /// of its parents. Its manifest and the log are not among them.
    ///
    /// # Errors
    /// When the block map cannot be read or is damaged.
    pub fn needs(&self) -> Result<Vec<ObjectKey>, RepositoryError> {
        let (map, manifest) = match self.has.as_ref() {
            Has::V1(contents) => {
                let stated = contents.bundles.values();
                return Ok(stated.map(|stated| stated.key.clone()).collect());
            }
            Has::V2(map, manifest) => (map, manifest),
        };
        let source = &self.summary.source;
        let mut needs = Vec::new();
        for record in &manifest.maps {
            needs.push(layout::map(source, &record.folder, record.number)?);
        }
        for entry in map.scan(&key::bundle(0)) {
            let (found, value) = entry?;
            let Some(MapKey::Bundle(_)) = MapKey::parse(&found) else {
                break;
            };
            let record = self.read_bundle(&value)?;
            let (folder, number) = (&record.folder, record.number);
            needs.push(layout::bundle(Format::V2, source, folder, number)?);
        }
        Ok(needs)
    }
}
