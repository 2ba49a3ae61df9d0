//! How many compilers run at a time on one machine: whoever compiles has one of as many places as there are
//! processors.
//!
//! Every cargo counts its own jobs, and knows nothing of another that runs beside it. Two compilers on a processor are
//! not sooner done than one after the other: each throws out of the caches what the other needs, and what all wait for
//! is done later. Jobs that build together would have that all the time. So there are places for all of a user's
//! compilers that may run on the same processors, whatever cargo and `KILN_DIR` they are of.
//!
//! A place is a file that is locked by who has it; the system ends the lock with the process. Nobody waits for who
//! does not get on: as many compilers more may run as processors are idle, and one more for each that has its place
//! for long. What cannot be told, or done, holds nobody up.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use kiln_server::socket_path::user_dir;
use kiln_storage::Digest;
use rustix::param::clock_ticks_per_second;
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::env::Env;
use crate::limits::{PLACE_AGE, PLACE_IDLE, PLACE_IDLE_MOST, PLACE_PAUSE, PLACE_WAIT_HERE};

/// Below the directory that a user has for what runs.
const PLACES: &str = "places";
/// Most places, however many processors there are.
pub(crate) const MAX_PLACES: usize = 1024;
/// Most places that are looked at again and again; all of them once in a while.
const LOOKS: usize = 8;
/// Most that may come after one another to a place that was taken too long ago.
const MAX_TURNS: usize = 8;

/// A place among those who compile. Dropped, it is free.
#[derive(Debug)]
pub(crate) struct Place {
    /// Locked as long as it is there.
    file: File,
}

impl Place {
    /// The place that a file stands for, unless somebody has it.
    pub(crate) fn take(path: &Path) -> Option<Self> {
        let file = lock_file(path).ok()?;
        file.try_lock().is_ok().then_some(Self { file })
    }

    /// Notes when it was taken.
    fn just_taken(self) -> Self {
        let _ = self.file.set_modified(SystemTime::now());
        self
    }
}

/// A file that is there to be locked.
pub(crate) fn lock_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

/// The places of the processors that this process may run on.
#[derive(Debug)]
pub(crate) struct Places {
    dir: PathBuf,
    count: usize,
    processors: Vec<usize>,
}

impl Places {
    /// The places here, for a cargo with so many jobs: never fewer than it would have by itself. None where there is
    /// no directory for them that is this user's alone.
    pub(crate) fn here(env: &Env, jobs: Option<usize>) -> Option<Self> {
        let set = sched_getaffinity(None).ok()?;
        let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        let base = env.absolute("XDG_RUNTIME_DIR").unwrap_or_else(|| "/tmp".into());
        let may_use = std::thread::available_parallelism().map_or(1, usize::from);
        Self::below(&base, processors, may_use.max(jobs.unwrap_or(1)))
    }

    fn below(base: &Path, processors: Vec<usize>, count: usize) -> Option<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let own = user_dir(base, uid);
        let _ = DirBuilder::new().mode(0o700).create(&own);
        let is_own =
            |meta: &Metadata| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0;
        std::fs::symlink_metadata(&own).ok().filter(is_own)?;
        let named = Digest::of(format!("{processors:?}").as_bytes()).short();
        let dir = own.join(PLACES).join(named);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).ok()?;
        Some(Self { dir, count: count.min(MAX_PLACES), processors })
    }

    /// A place, waited for while all are taken, no processor is idle and it is not over for another reason.
    pub(crate) fn place(&self, is_over: impl Fn() -> bool) -> Option<Place> {
        let first = std::process::id() as usize;
        let any =
            || (first..first + self.count).find_map(|n| self.take(&(n % self.count).to_string()));
        if let Some(place) = any() {
            return Some(place);
        }
        let some = (0..LOOKS.min(self.count)).map(|n| (first + n) % self.count);
        let mut looked: Vec<File> =
            some.filter_map(|n| lock_file(&self.path(&n.to_string(), 0)).ok()).collect();
        let began = Instant::now();
        let mut idle = Idle::since_now(&self.processors)?;
        loop {
            sleep(PLACE_PAUSE);
            if let Some(at) = looked.iter().position(|file| file.try_lock().is_ok()) {
                return Some(Place { file: looked.swap_remove(at) }.just_taken());
            }
            // Who has a place and waits for a disk, or was stopped, leaves the processor to others.
            if idle.is_due() {
                let idle = idle.processors(&self.processors)?;
                let place = any().or_else(|| self.take_idle(idle));
                if place.is_some() {
                    return place;
                }
            }
            if is_over() || began.elapsed() >= PLACE_WAIT_HERE {
                return None;
            }
        }
    }

    /// One of as many more places as there are idle processors. One that was taken a moment ago has its processor from them.
    fn take_idle(&self, idle: usize) -> Option<Place> {
        let mut new = 0;
        for number in 0..self.count {
            if new >= idle {
                return None;
            }
            let name = format!("idle-{number}");
            let place = self.take(&name);
            if place.is_some() {
                return place;
            }
            new += usize::from(self.age(&name, 0).is_none_or(|age| age < PLACE_IDLE_MOST));
        }
        None
    }

    /// The place with a name, or the one of who comes after whoever has it for too long.
    fn take(&self, name: &str) -> Option<Place> {
        for turn in 0..MAX_TURNS {
            if let Some(place) = Place::take(&self.path(name, turn)) {
                return Some(place.just_taken());
            }
            if self.age(name, turn).is_none_or(|age| age < PLACE_AGE) {
                return None;
            }
        }
        None
    }

    fn path(&self, name: &str, turn: usize) -> PathBuf {
        self.dir.join(format!("{name}.{turn}"))
    }

    /// How long ago a place was taken; none where the clock was set back, or it is gone.
    fn age(&self, name: &str, turn: usize) -> Option<Duration> {
        let meta = std::fs::metadata(self.path(name, turn)).ok()?;
        meta.modified().ok()?.elapsed().ok()
    }
}

/// How long processors had nothing to do, up to a moment.
struct Idle {
    until: Instant,
    ticks: u64,
    /// After so long it is told again; longer each time.
    every: Duration,
}

impl Idle {
    fn since_now(processors: &[usize]) -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let ticks = idle_ticks(&stat, processors)?;
        Some(Self { until: Instant::now(), ticks, every: PLACE_IDLE })
    }

    /// Whether enough time has gone by to tell.
    fn is_due(&self) -> bool {
        self.until.elapsed() >= self.every
    }

    /// How many of them had nothing to do since it was last told. None when it cannot be told any more.
    fn processors(&mut self, processors: &[usize]) -> Option<usize> {
        let now = Self::since_now(processors)?;
        let idle = now.ticks.saturating_sub(self.ticks) * 1000 / clock_ticks_per_second().max(1);
        let whole = whole_processors(Duration::from_millis(idle), now.until - self.until);
        *self = Self { every: (2 * self.every).min(PLACE_IDLE_MOST), ..now };
        Some(whole)
    }
}

/// How many processors were idle that had nothing to do for so long in all; one that was for three quarters counts.
fn whole_processors(idle: Duration, elapsed: Duration) -> usize {
    (idle.as_secs_f64() / elapsed.as_secs_f64() + 0.25) as usize
}

/// The time that some processors did nothing, or waited for a disk, in ticks.
fn idle_ticks(stat: &str, processors: &[usize]) -> Option<u64> {
    let lines = stat.lines().filter_map(|line| {
        let (number, times) = line.strip_prefix("cpu")?.split_once(' ')?;
        processors.contains(&number.parse().ok()?).then_some(times)
    });
    let idle = |times: &str| {
        let both = times.split_whitespace().skip(3).take(2);
        both.map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()
    };
    let all: Vec<u64> = lines.map(idle).collect::<Option<_>>()?;
    (all.len() == processors.len()).then(|| all.iter().sum())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn places(base: &Path, processors: &[usize], count: usize) -> Places {
        Places::below(base, processors.to_vec(), count).unwrap()
    }

    /// All that can be had by who does not wait.
    fn all(places: &Places) -> Vec<Place> {
        (0..64).map_while(|_| places.place(|| true)).collect()
    }

    #[test]
    fn there_are_as_many_as_processors_for_all_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| places(dir.path(), &[0, 1], 2));
        let had = [one.place(|| true).unwrap(), other.place(|| true).unwrap()];
        // An idle processor is not seen at the first look.
        assert_eq!((all(&one).len(), all(&other).len()), (0, 0));
        assert_eq!(all(&places(dir.path(), &[1], 1)).len(), 1, "of other processors");
        drop(had);
        assert_eq!(all(&one).len(), 2);
        assert_eq!(all(&places(dir.path(), &[0, 1], 8)).len(), 8, "of a cargo with -j8");
    }

    #[test]
    fn who_waits_has_the_place_of_the_first_that_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (places(dir.path(), &[0], 1), places(dir.path(), &[0], 1));
        let had = one.place(|| true);
        assert!(had.is_some());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| other.place(|| false));
            drop(had);
            assert!(next.join().unwrap().is_some());
        });
    }

    #[test]
    fn whoever_has_one_for_long_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path(), &[0, 1], 2);
        let had = all(&places);
        let long_ago = SystemTime::now() - PLACE_AGE;
        had[0].file.set_modified(long_ago).unwrap();
        let next = all(&places);
        assert_eq!(next.len(), 1, "one comes after it");
        next[0].file.set_modified(long_ago).unwrap();
        assert_eq!(all(&places).len(), 1, "and one after that");
        let ahead = SystemTime::now() + Duration::from_secs(3600);
        had[1].file.set_modified(ahead).unwrap();
        drop(had);
        assert_eq!(all(&places).len(), 2);
    }

    #[test]
    fn a_directory_that_others_may_use_is_not_used() {
        let none = |base: &Path| assert!(Places::below(base, vec![0], 1).is_none());
        let dir = tempfile::tempdir().unwrap();
        none(&dir.path().join("nowhere"));
        let own = user_dir(dir.path(), rustix::process::geteuid().as_raw());
        std::fs::create_dir(&own).unwrap();
        std::fs::set_permissions(&own, Permissions::from_mode(0o755)).unwrap();
        none(dir.path());
        std::fs::set_permissions(&own, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(all(&places(dir.path(), &[0], 1)).len(), 1);
        let linked = tempfile::tempdir().unwrap();
        symlink(&own, linked.path().join(own.file_name().unwrap())).unwrap();
        none(linked.path());
    }

    #[test]
    fn the_time_that_processors_had_nothing_to_do() {
        let stat = "cpu  9 9 9 700 90 9\ncpu0 1 2 3 400 50 6\ncpu1 1 2 3 300 40 6\ncpu10 1 2 3 7 1 0\nintr 5\n";
        let of = |processors: &[usize]| idle_ticks(stat, processors);
        assert_eq!([of(&[0]), of(&[1]), of(&[0, 1]), of(&[10])], [450, 340, 790, 8].map(Some));
        assert_eq!(of(&[0, 2]), None, "one of them is not told");
        assert_eq!(idle_ticks("cpu0 1 2 3 x 5\n", &[0]), None);
        assert_eq!(idle_ticks("", &[0]), None);
    }

    #[test]
    fn a_processor_that_is_idle_for_most_of_the_time_counts() {
        let of = |idle| whole_processors(Duration::from_millis(idle), Duration::from_millis(1000));
        assert_eq!([of(0), of(700), of(760), of(1700), of(1800)], [0, 0, 1, 1, 2]);
    }

    #[test]
    fn idle_is_told_once_in_a_while() {
        let set = sched_getaffinity(None).unwrap();
        let own: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        let of = |ticks, every| {
            let until = Instant::now().checked_sub(PLACE_IDLE).unwrap();
            Idle { until, ticks, every }
        };
        assert!(of(0, PLACE_IDLE).is_due() && !of(0, PLACE_IDLE_MOST).is_due());
        let mut all_along = of(0, PLACE_IDLE);
        assert!(all_along.processors(&own).unwrap() >= 1, "since the machine was started");
        assert_eq!(all_along.every, 2 * PLACE_IDLE);
        assert_eq!(of(u64::MAX, PLACE_IDLE_MOST).processors(&own), Some(0));
        assert_eq!(of(0, PLACE_IDLE).processors(&[CpuSet::MAX_CPU]), None);
    }

    #[test]
    fn as_many_more_begin_as_processors_are_idle() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path(), &[0, 1, 2], 3);
        let _all = all(&places);
        assert!(places.take_idle(0).is_none());
        let first = places.take_idle(1).unwrap();
        assert!(places.take_idle(1).is_none(), "the first has it from now on");
        let second = places.take_idle(2).unwrap();
        let long_ago = SystemTime::now() - PLACE_IDLE_MOST;
        first.file.set_modified(long_ago).unwrap();
        assert!(places.take_idle(1).is_none(), "the second has it");
        second.file.set_modified(long_ago).unwrap();
        let _third = places.take_idle(1).unwrap();
        assert!(places.take_idle(3).is_none(), "no more than there are processors");
    }
}
