//! How fast this machine compiles, against those that recorded what units cost: a number in the state directory, from
//! the units that were compiled here and had an earlier result.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tool::write_whole;

/// A unit that took less says nothing of the machine.
const SHORTEST: Duration = Duration::from_millis(100);
/// What one unit counts against all before.
const SHARE: f64 = 0.2;
/// Slowest and fastest that is believed.
const BOUNDS: (f64, f64) = (0.1, 10.0);

fn path(dir: &Path) -> PathBuf {
    dir.join("speed")
}

/// How many times as long as recorded a compile takes here; 1 when nothing is known.
fn factor(dir: &Path) -> f64 {
    let text = std::fs::read_to_string(path(dir)).unwrap_or_default();
    let known = text.trim().parse().ok().filter(|known: &f64| known.is_finite());
    known.map_or(1.0, |known| known.clamp(BOUNDS.0, BOUNDS.1))
}

/// What a unit takes here that took so long elsewhere.
pub(super) fn here(dir: &Path, recorded: Duration) -> Duration {
    recorded.mul_f64(factor(dir))
}

/// Notes how long a unit took here that took so long when its earlier result was made.
pub(super) fn note(dir: &Path, recorded: Duration, took: Duration) {
    if recorded >= SHORTEST && took >= SHORTEST {
        let one = (took.as_secs_f64() / recorded.as_secs_f64()).clamp(BOUNDS.0, BOUNDS.1);
        let all = factor(dir) * (1.0 - SHARE) + one * SHARE;
        write_whole(&path(dir), format!("{all:.3}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_slow_machine_is_known_after_some_units() {
        let dir = tempfile::tempdir().unwrap();
        let here = |recorded| here(dir.path(), recorded);
        assert_eq!(here(ms(500)), ms(500), "nothing is known");
        (0..40).for_each(|_| note(dir.path(), ms(1000), ms(3000)));
        assert!((ms(1450)..ms(1550)).contains(&here(ms(500))), "{:?}", here(ms(500)));
        note(dir.path(), ms(5), ms(5000));
        assert!(here(ms(500)) < ms(1550), "what is short says nothing");
    }

    #[test]
    fn nonsense_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        for (text, want) in [("x", 100), ("NaN", 100), ("inf", 100), ("-3", 10), ("1e9", 1000)] {
            std::fs::write(path(dir.path()), text).unwrap();
            assert_eq!(here(dir.path(), ms(100)), ms(want), "{text}");
        }
    }
}
