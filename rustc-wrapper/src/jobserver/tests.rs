//! A jobserver with this process in the role of cargo: tokens given, taken back, owed and repaid; and what gets none.

use std::os::fd::AsRawFd;

use super::*;

/// A pipe of tokens, as cargo makes one, and the directory of its ledger.
struct Pipes {
    read: File,
    write: File,
    dir: tempfile::TempDir,
}

impl Pipes {
    fn new() -> Self {
        let (read, write) = rustix::pipe::pipe().unwrap();
        Self { read: read.into(), write: write.into(), dir: tempfile::tempdir().unwrap() }
    }

    fn auth(&self) -> String {
        format!("{},{}", self.read.as_raw_fd(), self.write.as_raw_fd())
    }

    /// The jobserver as a wrapper finds it that this process started with so many jobs.
    fn found(&self, auth: &str, jobs: usize) -> Option<Jobserver> {
        let flags = format!("-j --jobserver-fds=98,99 --jobserver-auth={auth}");
        Jobserver::of(
            &cargo(b"", jobs),
            &Env::of_pairs([(VARIABLE, flags.as_str())]),
            self.dir.path(),
        )
    }

    fn jobserver(&self, jobs: usize) -> Jobserver {
        self.found(&self.auth(), jobs).unwrap()
    }

    /// Tokens that are idle.
    fn idle(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.read).unwrap()
    }

    fn put(&self) {
        (&self.write).write_all(TOKEN).unwrap();
    }

    /// Files in the ledger.
    fn booked(&self) -> usize {
        let ledgers = std::fs::read_dir(self.dir.path().join("jobserver")).into_iter().flatten();
        let files = ledgers.flatten().flat_map(|dir| std::fs::read_dir(dir.path()).unwrap());
        let is_own = |name: &std::ffi::OsStr| name == "lock" || name == "places";
        files.flatten().filter(|file| !is_own(&file.file_name())).count()
    }
}

/// This process in the role of cargo.
fn cargo(environment: &[u8], jobs: usize) -> Cargo {
    let process = PathBuf::from(format!("/proc/{}", std::process::id()));
    let command_line = format!("cargo\0build\0-j{jobs}\0").into_bytes();
    Cargo { process, environment: environment.to_vec(), command_line }
}

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_token_is_given_and_taken_back() {
    let pipes = Pipes::new();
    let jobserver = pipes.jobserver(2);
    let given = jobserver.give().unwrap();
    assert_eq!((pipes.idle(), pipes.booked()), (1, 1));
    jobserver.take_back(given, SHORT);
    assert_eq!((pipes.idle(), pipes.booked()), (0, 0));
}

#[test]
fn a_token_that_is_owed_is_not_given_once_more() {
    let pipes = Pipes::new();
    let jobserver = pipes.jobserver(2);
    drop(jobserver.give().unwrap());
    assert_eq!((pipes.idle(), pipes.booked()), (1, 1), "owed");
    let given = jobserver.give().unwrap();
    assert_eq!((pipes.idle(), pipes.booked()), (1, 1), "taken over");
    let other = jobserver.give().unwrap();
    assert_eq!((pipes.idle(), pipes.booked()), (2, 2), "two wait");
    jobserver.take_back(other, SHORT);
    jobserver.take_back(given, SHORT);
    assert_eq!((pipes.idle(), pipes.booked()), (0, 0));
}

#[test]
fn what_cannot_be_taken_back_is_owed_and_repaid_by_the_next() {
    let pipes = Pipes::new();
    let jobserver = pipes.jobserver(2);
    let given = jobserver.give().unwrap();
    assert!(jobserver.read_one().unwrap(), "cargo starts another crate");
    jobserver.take_back(given, SHORT);
    assert_eq!((pipes.idle(), pipes.booked()), (0, 1));
    jobserver.repay();
    assert_eq!(pipes.booked(), 1, "nothing is idle");
    pipes.put();
    pipes.put();
    jobserver.repay();
    assert_eq!((pipes.idle(), pipes.booked()), (1, 0), "one was owed");
}

#[test]
fn nobody_repays_for_one_who_still_waits() {
    let pipes = Pipes::new();
    let jobserver = pipes.jobserver(2);
    let given = jobserver.give().unwrap();
    jobserver.repay();
    assert_eq!((pipes.idle(), pipes.booked()), (1, 1));
    drop(given);
    jobserver.repay();
    assert_eq!((pipes.idle(), pipes.booked()), (0, 0));
}

#[test]
fn so_many_are_given_and_no_more() {
    let pipes = Pipes::new();
    for jobs in [1, 8] {
        let jobserver = pipes.jobserver(jobs);
        let given: Vec<Given> = (0..64).map_while(|_| jobserver.give()).collect();
        assert_eq!(given.len(), (2 * jobs).max(4));
        assert_eq!(pipes.idle(), given.len() as u64);
        given.into_iter().for_each(|given| jobserver.take_back(given, SHORT));
        assert_eq!((pipes.idle(), pipes.booked()), (0, 0));
    }
}

/// So many tokens are owed, of which cargo has made crates that run.
fn owe(pipes: &Pipes, jobserver: &Jobserver, tokens: usize) {
    let given: Vec<Given> = (0..tokens).map(|_| jobserver.give().unwrap()).collect();
    drop(given);
    while pipes.idle() > 0 {
        assert!(jobserver.read_one().unwrap());
    }
    assert_eq!(pipes.booked(), tokens);
}

#[test]
fn while_a_token_is_owed_no_more_compile_than_cargo_has_jobs() {
    for jobs in [1, 2, 8] {
        let pipes = Pipes::new();
        let jobserver = pipes.jobserver(jobs);
        owe(&pipes, &jobserver, (2 * jobs).max(4));
        let place = |within| jobserver.place(within, || false);
        let mut places: Vec<Place> = (0..64).map_while(|_| place(Duration::ZERO)).collect();
        assert_eq!(places.len(), jobs);
        let long = Duration::from_secs(3600);
        assert!(jobserver.place(long, || true).is_none(), "nobody wants it any more");
        std::thread::scope(|scope| {
            let next = scope.spawn(|| place(long));
            drop(places.pop());
            assert!(next.join().unwrap().is_some(), "one has ended");
        });
    }
}

#[test]
fn who_waits_for_a_place_repays_and_goes_on_when_nothing_is_owed() {
    let pipes = Pipes::new();
    let jobserver = pipes.jobserver(2);
    owe(&pipes, &jobserver, 3);
    let places = [(); 2].map(|()| jobserver.place(Duration::ZERO, || false).unwrap());
    for left in [2, 1] {
        pipes.put();
        assert!(jobserver.place(Duration::ZERO, || false).is_none());
        assert_eq!((pipes.idle(), pipes.booked()), (0, left));
    }
    pipes.put();
    assert!(jobserver.place(Duration::from_secs(3600), || false).is_none());
    assert_eq!((pipes.idle(), pipes.booked()), (0, 0));
    drop(places);
}

#[test]
fn what_cargo_starts_by_itself_is_not_held_up() {
    let pipes = Pipes::new();
    let jobserver = pipes.jobserver(2);
    let long = Duration::from_secs(3600);
    let places: Vec<Place> = (0..64).map_while(|_| jobserver.place(long, || false)).collect();
    assert_eq!(places.len(), 2, "whatever the number of jobs is taken for");
}

#[test]
fn a_full_pipe_takes_no_token() {
    let pipes = Pipes::new();
    let jobserver = pipes.jobserver(2);
    while (&jobserver.write).write(&[0; 4096]).is_ok() {}
    while (&jobserver.write).write(&[0]).is_ok() {}
    let before = pipes.idle();
    assert!(jobserver.give().is_none());
    assert_eq!((pipes.idle(), pipes.booked()), (before, 0));
}

#[test]
fn numbers_that_are_something_else_get_nothing() {
    let (pipes, other) = (Pipes::new(), Pipes::new());
    let file = tempfile::tempfile().unwrap();
    let (read, write) = (pipes.read.as_raw_fd(), pipes.write.as_raw_fd());
    let both = OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{read}"));
    let both = both.unwrap();
    for auth in [
        format!("{read},{read}"),
        format!("{write},{read}"),
        format!("{read},{}", other.write.as_raw_fd()),
        format!("{read},{}", both.as_raw_fd()),
        format!("{},{}", file.as_raw_fd(), file.as_raw_fd()),
        format!("{read},100000"),
        format!("{read}"),
        "-1,-2".to_owned(),
        String::new(),
    ] {
        assert!(pipes.found(&auth, 2).is_none(), "{auth}");
    }
    assert!(pipes.found(&pipes.auth(), 2).is_some());
}

/// Somebody who was stopped while it had the ledger locked stops nobody else.
#[test]
fn a_ledger_that_stays_locked_is_not_waited_for() {
    let pipes = Pipes::new();
    let jobserver = pipes.jobserver(2);
    let given = jobserver.give().unwrap();
    let ledgers = std::fs::read_dir(pipes.dir.path().join("jobserver")).unwrap();
    let lock = ledgers.flatten().next().unwrap().path().join("lock");
    let lock = File::open(lock).unwrap();
    lock.lock().unwrap();
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        assert!(jobserver.give().is_none());
        jobserver.repay();
        jobserver.take_back(given, SHORT);
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((pipes.idle(), pipes.booked()), (1, 1), "it is owed");
    drop(lock);
    pipes.jobserver(2).repay();
    assert_eq!((pipes.idle(), pipes.booked()), (0, 0));
}

/// A descriptor of this process that the one in the role of cargo has not, or has as something else.
#[test]
fn a_pipe_that_cargo_does_not_have_gets_nothing() {
    let pipes = Pipes::new();
    let flags = format!("--jobserver-auth={}", pipes.auth());
    let env = Env::of_pairs([(VARIABLE, flags.as_str())]);
    let stranger = Cargo { process: "/proc/1".into(), ..cargo(b"", 2) };
    assert!(Jobserver::of(&stranger, &env, pipes.dir.path()).is_none());
    assert!(Jobserver::of(&cargo(b"", 2), &env, pipes.dir.path()).is_some());
}

#[test]
fn a_jobserver_of_make_is_left_alone() {
    let pipes = Pipes::new();
    let flags = format!("--jobserver-auth={}", pipes.auth());
    let env = Env::of_pairs([(VARIABLE, flags.as_str())]);
    let of = |environment: &[u8]| {
        Jobserver::of(&cargo(environment, 2), &env, pipes.dir.path()).is_some()
    };
    for inherited in [
        &b"MAKEFLAGS= -j4 --jobserver-auth=3,4"[..],
        b"A=1\0MFLAGS=-j --jobserver-fds=3,4\0",
        b"CARGO_MAKEFLAGS=-j --jobserver-auth=fifo:/tmp/x",
    ] {
        assert!(!of(inherited), "{}", String::from_utf8_lossy(inherited));
    }
    assert!(of(b"MAKEFLAGS=-k\0MAKEFLAGS_OLD=--jobserver-auth=3,4\0"));
}

#[test]
fn a_named_pipe_counts_when_cargo_has_it_open() {
    let pipes = Pipes::new();
    let path = pipes.dir.path().join("tokens");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let auth = format!("fifo:{}", path.display());
    assert!(pipes.found(&auth, 2).is_none(), "nobody has it open");
    let open = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let jobserver = pipes.found(&auth, 2).unwrap();
    let given = jobserver.give().unwrap();
    assert_eq!(rustix::io::ioctl_fionread(&open).unwrap(), 1);
    jobserver.take_back(given, SHORT);
    assert_eq!(rustix::io::ioctl_fionread(&open).unwrap(), 0);
    let file = pipes.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(pipes.found(&format!("fifo:{}", file.display()), 2).is_none());
    assert!(pipes.found("fifo:tokens", 2).is_none());
}

#[test]
fn how_many_jobs_there_are_is_what_cargo_was_told() {
    let env = |value: &str| Env::of_pairs([("CARGO_BUILD_JOBS", value)]);
    let of = |line: &str| jobs(line.replace(' ', "\0").as_bytes(), &env("5"));
    assert_eq!(of("cargo build -j 3"), 3);
    assert_eq!(of("cargo build -j3 --release"), 3);
    assert_eq!(of("cargo --jobs 7 build"), 7);
    assert_eq!(of("cargo build --jobs=7"), 7);
    assert_eq!(of("cargo build --jobs default"), 5);
    assert_eq!(of("cargo build -j0"), 5);
    assert!(jobs(b"cargo", &env("-1")) >= 1);
}

#[test]
fn ledgers_of_a_cargo_that_is_gone_are_removed() {
    let pipes = Pipes::new();
    let old = pipes.dir.path().join("jobserver/1-2-4194305-7");
    std::fs::create_dir_all(&old).unwrap();
    std::fs::write(old.join("0"), "").unwrap();
    drop(pipes.jobserver(2).give());
    assert!(!old.exists());
    assert_eq!(pipes.booked(), 1);
}
