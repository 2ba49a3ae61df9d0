//! A fresh machine with a warm bucket: a build through a Kiln that has stored nothing here, against an archive
//! of the same target directory from the same S3, unpacked, and cargo run on it. Both have all sources. Cargo is
//! run on the archive twice: with sources that are older than it, where it compiles nothing (asserted), and with
//! those of a new checkout, as on a machine of CI, where it compiles the members of the workspace again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Instant, SystemTime};

use kiln_storage::api::{Counts, RemoteStatus, ServerInfo};

use crate::cargo::{Build, Profile, bare, wipe};
use crate::failure::{Failure, Outcome, at, while_doing};
use crate::place::Kiln;
use crate::programs::Programs;
use crate::report::{self, Table, Unit};
use crate::s3::S3;
use crate::statistics::Series;
use crate::warm::plain;

/// What caches of CI use.
const ZSTD_LEVEL: i32 = 3;

/// Measures the dev profile of a project, in so many pairs.
///
/// # Errors
/// When a build fails, the archive was not fresh, or nothing came from the bucket.
pub fn run(
    programs: &Programs,
    (name, project): (&str, &Path),
    dir: &Path,
    pairs: usize,
) -> Outcome<()> {
    report::progress(&format!("fresh, {name}: two cold builds first"));
    let s3 = S3::start()?;
    let archive = Archive::make(&s3, project, dir)?;
    let mut variables = s3.variables("kiln");
    variables.push(("KILN_JOB", "fresh".into()));
    let kiln = Kiln::new(&programs.kiln, dir.join("kiln")).with(variables);
    let build = kiln.build(project, Profile::Dev, dir.join("target-kiln"));
    build.from_nothing()?;
    let misses = kiln.stats()?.build.miss;
    report::progress(&format!("fresh, {name}: {pairs} pairs"));
    let mut measured = Measured::default();
    for pair in 0..pairs {
        // Each of the two goes first in every other pair.
        if pair % 2 == 0 {
            archive.measure(&s3, &mut measured)?;
        }
        // Stopping sends what is not there yet.
        kiln.forget()?;
        measured.kiln_s.push(build.from_nothing()?);
        measured.counts = kiln.stats()?.build;
        let counts = &measured.counts;
        if counts.hit_remote == 0 || counts.miss + counts.error > misses / 4 {
            let text = format!("it was no build from a warm bucket: {counts:?}");
            return Err(Failure::NotMeasured(text));
        }
        let remote = remote(&kiln)?;
        measured.requests.push(remote.requests as f64);
        measured.mib_in.push(mib(remote.bytes_in));
        if pair % 2 == 1 {
            archive.measure(&s3, &mut measured)?;
        }
    }
    measured.table(name, &archive).print();
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What the server counted of the bucket since it started, which it did in this build.
fn remote(kiln: &Kiln) -> Outcome<RemoteStatus> {
    let none = || Failure::NotMeasured("the server does not tell what is behind it".into());
    let address = kiln::client::Address::Unix(kiln.dir().join("kiln.sock"));
    let mut client = kiln::client::Client::connect(&address).map_err(|_| none())?;
    let answer = client.request("GET", "/v1/server", &[], kiln_storage::limits::LOOKUP_TIMEOUT);
    let info: ServerInfo =
        serde_json::from_slice(&answer.map_err(|_| none())?).map_err(|_| none())?;
    info.remote.ok_or_else(none)
}

#[derive(Debug, Default)]
struct Measured {
    kiln_s: Series,
    requests: Series,
    mib_in: Series,
    counts: Counts,
    archive_s: Series,
    unpack_s: Series,
    cargo_s: Series,
    checkout_s: Series,
}

impl Measured {
    fn table(&self, name: &str, archive: &Archive) -> Table {
        let mut table = Table::new(format!("Fresh machine, warm bucket, {name}, dev"));
        let over = |other: &Series| self.kiln_s.over(other);
        table.row("kiln / archive, new checkout", Unit::Ratio, &over(&self.checkout_s));
        table.row("kiln / archive, sources as they were", Unit::Ratio, &over(&self.archive_s));
        table.row("kiln", Unit::Seconds, &self.kiln_s);
        table.row("archive, new checkout: all", Unit::Seconds, &self.checkout_s);
        table.row("archive, sources as they were: all", Unit::Seconds, &self.archive_s);
        table.row("archive: download and unpack", Unit::Seconds, &self.unpack_s);
        table.row("archive: cargo, all fresh", Unit::Seconds, &self.cargo_s);
        table.value("plain cargo, cold", Unit::Seconds, archive.cold_s);
        table.row("kiln: requests", Unit::Count, &self.requests);
        table.value("archive: requests", Unit::Count, 1.0);
        table.row("kiln: received", Unit::Mebibytes, &self.mib_in);
        table.value("archive: received", Unit::Mebibytes, mib(archive.bytes));
        table.value("archive: unpacked", Unit::Mebibytes, mib(archive.unpacked));
        let counts = &self.counts;
        table.note(format!(
            "{} units, of them {} hits from the bucket, {} from here, {} misses, {} bypasses, {} errors.",
            counts.units,
            counts.hit_remote,
            counts.hit_local,
            counts.miss,
            counts.bypass,
            counts.error,
        ));
        table
    }
}

/// A target directory, packed and in the bucket.
#[derive(Debug)]
struct Archive {
    name: &'static str,
    build: Build,
    target: PathBuf,
    bytes: u64,
    unpacked: u64,
    cold_s: f64,
}

impl Archive {
    fn make(s3: &S3, project: &Path, dir: &Path) -> Outcome<Self> {
        let target = dir.join("target-archive");
        let build = plain(project, Profile::Dev, target.clone());
        let cold_s = build.from_nothing()?;
        let (name, file) = ("target.tar.zst", dir.join("target.tar.zst"));
        let mut tar = bare("tar")
            .args(["--create", "--format=posix", "--directory"])
            .arg(&target)
            .arg(".")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(while_doing("tar"))?;
        let packed = File::create(&file).map_err(at(&file))?;
        let mut packed = zstd::Encoder::new(packed, ZSTD_LEVEL).map_err(at(&file))?;
        let unpacked = match tar.stdout.take() {
            Some(mut all) => io::copy(&mut all, &mut packed).map_err(at(&file))?,
            None => 0,
        };
        packed.finish().map_err(at(&file))?;
        ended("tar", &mut tar)?;
        let bytes = file.metadata().map_err(at(&file))?.len();
        s3.put(name, &file)?;
        Ok(Self { name, build, target, bytes, unpacked, cold_s })
    }

    fn measure(&self, s3: &S3, measured: &mut Measured) -> Outcome<()> {
        wipe(&self.target)?;
        std::fs::create_dir_all(&self.target).map_err(at(&self.target))?;
        let start = Instant::now();
        self.unpack(s3)?;
        let unpack_s = start.elapsed().as_secs_f64();
        let cargo_s = self.build.on_fresh()?;
        measured.unpack_s.push(unpack_s);
        measured.cargo_s.push(cargo_s);
        measured.archive_s.push(unpack_s + cargo_s);
        let sources = Sources::made_new(&self.build.project)?;
        let again = self.build.on_what_is_there();
        sources.put_back()?;
        measured.checkout_s.push(unpack_s + again?);
        Ok(())
    }

    /// Download, decompression and unpacking run at the same time.
    fn unpack(&self, s3: &S3) -> Outcome<()> {
        let mut download = s3.get(self.name)?;
        let mut tar = bare("tar")
            .args(["--extract", "--directory"])
            .arg(&self.target)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(while_doing("tar"))?;
        if let (Some(from), Some(to)) = (download.stdout.take(), tar.stdin.take()) {
            zstd::stream::copy_decode(from, to).map_err(while_doing("unpacking"))?;
        }
        ended("curl", &mut download)?;
        ended("tar", &mut tar)
    }
}

/// The files of a project with the times that they had.
struct Sources(Vec<(PathBuf, SystemTime)>);

impl Sources {
    /// Gives all files of a project the time of a checkout that was made just now.
    fn made_new(project: &Path) -> Outcome<Self> {
        let (now, mut files, mut left) = (SystemTime::now(), Vec::new(), vec![project.to_owned()]);
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(&dir).map_err(at(&dir))? {
                let path = entry.map_err(at(&dir))?.path();
                let meta = path.symlink_metadata().map_err(at(&path))?;
                if meta.is_dir() {
                    left.push(path);
                } else if meta.is_file() {
                    let before = meta.modified().map_err(at(&path))?;
                    set_time(&path, now)?;
                    files.push((path, before));
                }
            }
        }
        Ok(Self(files))
    }

    fn put_back(self) -> Outcome<()> {
        self.0.iter().try_for_each(|(path, time)| set_time(path, *time))
    }
}

fn set_time(path: &Path, time: SystemTime) -> Outcome<()> {
    let file = File::options().append(true).open(path).map_err(at(path))?;
    file.set_modified(time).map_err(at(path))
}

fn ended(program: &str, child: &mut Child) -> Outcome<()> {
    let status = child.wait().map_err(while_doing(program))?;
    let failed = || Failure::Program { program: program.into(), output: status.to_string() };
    status.success().then_some(()).ok_or_else(failed)
}
