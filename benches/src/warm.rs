//! A warm build, target directory wiped each time: all hits, against the blind replay of the same
//! build by copy and by hard link.

use std::path::{Path, PathBuf};

use kiln_storage::api::{Counts, Event};

use crate::cargo::{Build, Profile};
use crate::events;
use crate::failure::{Failure, Outcome};
use crate::place::Kiln;
use crate::programs::Programs;
use crate::replay::{self, Mode};
use crate::report::{self, Table, Unit};
use crate::statistics::Series;

/// A build that the blind replay answers, or records.
pub fn replayed(
    programs: &Programs,
    project: &Path,
    profile: Profile,
    dir: &Path,
    mode: Mode,
) -> Build {
    Build {
        project: project.to_owned(),
        profile,
        wrapper: Some(programs.replay.clone()),
        target: dir.join("target-replay"),
        variables: vec![
            (replay::DIR, dir.join("recordings").into()),
            (replay::MODE, mode.word().into()),
        ],
    }
}

/// A build without a wrapper.
pub fn plain(project: &Path, profile: Profile, target: PathBuf) -> Build {
    Build { project: project.to_owned(), profile, wrapper: None, target, variables: Vec::new() }
}

/// Measures one profile, with so many pairs.
///
/// # Errors
/// When a build fails, or the warm builds were no hits.
pub fn run(
    programs: &Programs,
    project: &Path,
    profile: Profile,
    dir: &Path,
    pairs: usize,
) -> Outcome<()> {
    let name = profile.name();
    report::progress(&format!("warm, {name}: three cold builds first"));
    let cold_s = plain(project, profile, dir.join("target-plain")).from_nothing()?;
    replayed(programs, project, profile, dir, Mode::Record).from_nothing()?;
    let kiln = Kiln::new(&programs.kiln, dir.join("kiln"));
    let build = kiln.build(project, profile, dir.join("target-kiln"));
    build.from_nothing()?;
    let misses = kiln.stats()?.build.miss;
    let (copy, link) = (
        replayed(programs, project, profile, dir, Mode::Copy),
        replayed(programs, project, profile, dir, Mode::Link),
    );
    report::progress(&format!("warm, {name}: {pairs} pairs"));
    let (mut kiln_s, mut copy_s, mut link_s) =
        (Series::default(), Series::default(), Series::default());
    for _ in 0..pairs {
        kiln_s.push(build.from_nothing()?);
        copy_s.push(copy.from_nothing()?);
        link_s.push(link.from_nothing()?);
    }
    let counts = kiln.stats()?.build;
    if counts.hit_local == 0 || counts.miss + counts.error > misses / 4 {
        return Err(Failure::NotMeasured(format!("the warm build was no warm build: {counts:?}")));
    }
    let events = events::newest(kiln.dir(), usize::try_from(counts.units).unwrap_or(0))?;
    let measured = Measured { events, name, cold_s, kiln_s, copy_s, link_s, counts };
    measured.table().print();
    Ok(())
}

struct Measured {
    name: &'static str,
    cold_s: f64,
    kiln_s: Series,
    copy_s: Series,
    link_s: Series,
    counts: Counts,
    events: Vec<Event>,
}

impl Measured {
    fn table(&self) -> Table {
        let (kiln_s, copy_s, link_s) = (&self.kiln_s, &self.copy_s, &self.link_s);
        let counts = &self.counts;
        let over_cold = kiln_s.median().map(|s| s / self.cold_s);
        let mut table = Table::new(format!("Warm build, ripgrep, {}", self.name));
        table.row("kiln / blind replay by copy", Unit::Ratio, &kiln_s.over(copy_s));
        table.row("kiln / blind replay by hard link", Unit::Ratio, &kiln_s.over(link_s));
        table.row("kiln / plain cargo, cold", Unit::Ratio, &Series::new(over_cold));
        table.row("kiln", Unit::Seconds, kiln_s);
        table.row("blind replay by copy", Unit::Seconds, copy_s);
        table.row("blind replay by hard link", Unit::Seconds, link_s);
        table.value("plain cargo, cold", Unit::Seconds, self.cold_s);
        let units = counts.units.max(1) as f64;
        let each = Series::new(kiln_s.median().map(|s| s * 1000.0 / units));
        table.row("kiln's build, by unit", Unit::Milliseconds, &each);
        let more = kiln_s.median().zip(copy_s.median()).map(|(a, b)| (a - b) * 1000.0 / units);
        table.row("kiln over replay by copy, by unit", Unit::Milliseconds, &Series::new(more));
        let each = counts.restore_ms as f64 / counts.hit_local.max(1) as f64;
        table.value("a hit inside the build, as the wrapper says", Unit::Milliseconds, each);
        for (phase, each) in events::phases(&self.events) {
            table.row(&format!("kiln says: {phase}, of each unit"), Unit::Microseconds, &each);
            table.value(
                &format!("kiln says: {phase}, of all units"),
                Unit::Milliseconds,
                each.sum() / 1000.0,
            );
        }
        table.note(format!(
            "{units} units, of them {} hits, {} misses, {} bypasses, {} errors; {:.0} MiB restored.",
            counts.hit_local,
            counts.miss,
            counts.bypass,
            counts.error,
            counts.restored_bytes as f64 / f64::from(1 << 20),
        ));
        table
    }
}

/// The blind replay alone, by copy and by hard link, against plain cargo: what there is to gain.
///
/// # Errors
/// When a build fails.
pub fn floor(
    programs: &Programs,
    project: &Path,
    profile: Profile,
    dir: &Path,
    pairs: usize,
) -> Outcome<()> {
    let name = profile.name();
    report::progress(&format!("replay, {name}: two cold builds first"));
    let cold_s = plain(project, profile, dir.join("target-plain")).from_nothing()?;
    replayed(programs, project, profile, dir, Mode::Record).from_nothing()?;
    let (mut copy_s, mut link_s) = (Series::default(), Series::default());
    for _ in 0..pairs {
        copy_s.push(replayed(programs, project, profile, dir, Mode::Copy).from_nothing()?);
        link_s.push(replayed(programs, project, profile, dir, Mode::Link).from_nothing()?);
    }
    let mut table = Table::new(format!("Blind replay, ripgrep, {name}"));
    table.row("by copy / by hard link", Unit::Ratio, &copy_s.over(&link_s));
    table.row(
        "by copy / plain cargo, cold",
        Unit::Ratio,
        &Series::new(copy_s.median().map(|s| s / cold_s)),
    );
    table.row("by copy", Unit::Seconds, &copy_s);
    table.row("by hard link", Unit::Seconds, &link_s);
    table.value("plain cargo, cold", Unit::Seconds, cold_s);
    table.print();
    Ok(())
}
