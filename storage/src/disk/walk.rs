//! Listing a [`DiskStore`]. Called by [`super::DiskBackend`] and by a server that builds its index.

use std::fs::{self, Metadata};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::os;
use super::store::DiskStore;
use crate::backend::{Listed, StoreResult};
use crate::key::ObjectName;

impl DiskStore {
    /// Calls `take` with every object whose name begins with a prefix, until it breaks. The bytes
    /// are not verified. Objects that come or go meanwhile may be in it or not.
    ///
    /// # Errors
    /// [`crate::StoreError::Unavailable`].
    pub fn list(
        &self,
        prefix: &str,
        mut take: impl FnMut(Listed) -> ControlFlow<()>,
    ) -> StoreResult<()> {
        // Only directories that can hold a match are read; a prefix that is no beginning of a name
        // (with `..`, say) has none.
        let dir = prefix.rsplit_once('/').map_or("", |(dir, _)| dir);
        if !dir.is_empty() && dir.parse::<ObjectName>().is_err() {
            return Ok(());
        }
        let mut pending = vec![(self.dir().join(dir), dir.to_owned())];
        while let Some((path, below)) = pending.pop() {
            let flow = self.list_dir(&path, &below, &mut |name, kind| match kind {
                Kind::Directory(path) if may_hold(&name, prefix) => {
                    pending.push((path, name));
                    ControlFlow::Continue(())
                }
                Kind::File(meta) if name.starts_with(prefix) => match name.parse() {
                    Ok(name) => take(listed(name, &meta)),
                    Err(_) => ControlFlow::Continue(()),
                },
                _ => ControlFlow::Continue(()),
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// One directory. What vanishes while it is read is left out.
    fn list_dir(
        &self,
        path: &Path,
        below: &str,
        take: &mut dyn FnMut(String, Kind) -> ControlFlow<()>,
    ) -> StoreResult<ControlFlow<()>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if os::is_absent(&error) => return Ok(ControlFlow::Continue(())),
            Err(error) => return Err(os::read_error(&error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| os::read_error(&error))?;
            let file_name = entry.file_name();
            let (Some(segment), Ok(kind)) = (file_name.to_str(), entry.file_type()) else {
                continue;
            };
            let name =
                if below.is_empty() { segment.to_owned() } else { format!("{below}/{segment}") };
            let kind = if kind.is_dir() {
                Kind::Directory(entry.path())
            } else if kind.is_file() {
                match entry.metadata() {
                    Ok(meta) => Kind::File(meta),
                    Err(_) => continue,
                }
            } else {
                continue;
            };
            if take(name, kind).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

enum Kind {
    Directory(PathBuf),
    File(Metadata),
}

/// Whether names below a directory can begin with the prefix. Foreign directories cannot.
fn may_hold(dir: &str, prefix: &str) -> bool {
    let inside = format!("{dir}/");
    (inside.starts_with(prefix) || prefix.starts_with(&inside)) && dir.parse::<ObjectName>().is_ok()
}

fn listed(name: ObjectName, meta: &Metadata) -> Listed {
    // The modification time of a blob is its seal.
    let used = match name.blob_digest() {
        Some(_) => meta.accessed().ok(),
        None => meta.accessed().ok().max(meta.modified().ok()),
    };
    let since = used.and_then(|used| used.duration_since(UNIX_EPOCH).ok());
    Listed { name, size: meta.len(), used_ms: since.map_or(0, |since| since.as_millis() as u64) }
}
