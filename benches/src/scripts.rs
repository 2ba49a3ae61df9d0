//! Build scripts: a warm build of a project whose scripts compile C, against the blind replay of it, in
//! which runs of scripts are put back too; and what observing the scripts costs a cold build.

use std::ffi::OsString;
use std::path::Path;

use crate::cargo::{Build, Profile};
use crate::failure::{Failure, Outcome};
use crate::place::Kiln;
use crate::programs::Programs;
use crate::replay::Mode;
use crate::report::{self, Table, Unit};
use crate::statistics::Series;
use crate::warm::{plain, replayed};

/// Kiln's switch.
const SWITCH: &str = "KILN_BUILD_SCRIPTS";

/// Measures warm builds of one profile, in so many pairs.
///
/// # Errors
/// When a build fails, or the warm builds were no hits.
pub fn warm(
    programs: &Programs,
    project: &Path,
    profile: Profile,
    dir: &Path,
    pairs: usize,
) -> Outcome<()> {
    let name = profile.name();
    report::progress(&format!("scripts, warm, {name}: three cold builds first"));
    let cold_s = plain(project, profile, dir.join("target-plain")).from_nothing()?;
    replayed(programs, project, profile, dir, Mode::Record).from_nothing()?;
    let kiln = Kiln::new(&programs.kiln, dir.join("kiln"));
    let build = kiln.build(project, profile, dir.join("target-kiln"));
    build.from_nothing()?;
    let misses = kiln.stats()?.build.miss;
    let copy = replayed(programs, project, profile, dir, Mode::Copy);
    report::progress(&format!("scripts, warm, {name}: {pairs} pairs"));
    let (mut kiln_s, mut copy_s) = (Series::default(), Series::default());
    for pair in 0..pairs {
        // Each of the two goes first in every other pair.
        if pair % 2 == 0 {
            copy_s.push(copy.from_nothing()?);
        }
        kiln_s.push(build.from_nothing()?);
        if pair % 2 == 1 {
            copy_s.push(copy.from_nothing()?);
        }
    }
    let counts = kiln.stats()?.build;
    if counts.hit_local == 0 || counts.miss + counts.error > misses / 4 {
        return Err(Failure::NotMeasured(format!("the warm build was no warm build: {counts:?}")));
    }
    let mut table = Table::new(format!("Warm build, C libraries, {name}"));
    table.row("kiln / blind replay by copy", Unit::Ratio, &kiln_s.over(&copy_s));
    let over_cold = kiln_s.median().map(|s| s / cold_s);
    table.row("kiln / plain cargo, cold", Unit::Ratio, &Series::new(over_cold));
    table.row("kiln", Unit::Seconds, &kiln_s);
    table.row("blind replay by copy", Unit::Seconds, &copy_s);
    table.value("plain cargo, cold", Unit::Seconds, cold_s);
    table.note(format!(
        "{} units, of them {} hits, {} misses, {} bypasses, {} errors; {:.0} MiB restored.",
        counts.units,
        counts.hit_local,
        counts.miss,
        counts.bypass,
        counts.error,
        counts.restored_bytes as f64 / f64::from(1 << 20),
    ));
    table.print();
    Ok(())
}

/// Measures cold builds of the dev profile with scripts observed and stored against the same without, in
/// so many pairs.
///
/// # Errors
/// When a build fails, or a cache was not cold.
pub fn cold(programs: &Programs, project: &Path, dir: &Path, pairs: usize) -> Outcome<()> {
    report::progress(&format!("scripts, cold: {pairs} pairs"));
    let kiln = Kiln::new(&programs.kiln, dir.join("kiln"));
    let with = |switch: &str| {
        let mut build = kiln.build(project, Profile::Dev, dir.join("target"));
        build.variables.push((SWITCH, OsString::from(switch)));
        build
    };
    let (on, off) = (with("on"), with("off"));
    let (mut on_s, mut off_s) = (Series::default(), Series::default());
    for pair in 0..pairs {
        // Each of the two goes first in every other pair.
        let order = if pair % 2 == 0 { [false, true] } else { [true, false] };
        for observed in order {
            match observed {
                true => on_s.push(from_nothing(&kiln, &on)?),
                false => off_s.push(from_nothing(&kiln, &off)?),
            }
        }
    }
    let mut table = Table::new("Cold build, C libraries, dev");
    table.row("scripts observed and stored / not", Unit::Ratio, &on_s.over(&off_s));
    table.row("observed and stored", Unit::Seconds, &on_s);
    table.row("not", Unit::Seconds, &off_s);
    table.print();
    Ok(())
}

/// A build with an empty cache.
fn from_nothing(kiln: &Kiln, build: &Build) -> Outcome<f64> {
    kiln.forget()?;
    let seconds = build.from_nothing()?;
    let counts = kiln.stats()?.build;
    if counts.miss == 0 || counts.hit_local + counts.hit_remote > 0 {
        return Err(Failure::NotMeasured(format!("the cold build was no cold build: {counts:?}")));
    }
    Ok(seconds)
}
