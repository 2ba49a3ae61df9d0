//! What observation costs a compile: the same rustc command line again and again, compiled and
//! stored each time, with and without it.

use std::ffi::OsString;
use std::path::Path;

use kiln_storage::api::Counts;

use crate::cargo::Profile;
use crate::failure::{Failure, Outcome, at};
use crate::place::Kiln;
use crate::programs::Programs;
use crate::replay::{Mode, Recording};
use crate::report::{self, Table, Unit};
use crate::statistics::Series;
use crate::unit::RecordedUnit;
use crate::warm::replayed;

/// Pairs before the first that counts.
const UNCOUNTED: usize = 2;

/// Measures three units of the dev profile, each in so many pairs.
///
/// # Errors
/// When a build fails, or a run was no compile that was stored.
pub fn run(programs: &Programs, project: &Path, dir: &Path, pairs: usize) -> Outcome<()> {
    report::progress("observation: two cold builds first");
    let recorded = replayed(programs, project, Profile::Dev, dir, Mode::Record);
    recorded.from_nothing()?;
    let kiln = Kiln::new(&programs.kiln, dir.join("kiln"));
    // The same target directory: what is compiled again must be what its dependents were compiled with.
    kiln.build(project, Profile::Dev, recorded.target.clone()).from_nothing()?;
    let recordings = dir.join("recordings");
    let recordings = Recording::all(&recordings).map_err(at(&recordings))?;
    for unit in RecordedUnit::choose(&recordings) {
        report::progress(&format!("observation: {}, {pairs} pairs", unit.name));
        measure(programs, &kiln, &unit, pairs)?.print();
    }
    Ok(())
}

fn measure(programs: &Programs, kiln: &Kiln, unit: &RecordedUnit, pairs: usize) -> Outcome<Table> {
    let before = kiln.stats()?.total;
    let with = |observe: &str| {
        let mut variables = kiln.variables();
        variables.push(("KILN_MODE", OsString::from("refresh")));
        variables.push(("KILN_OBSERVE", OsString::from(observe)));
        unit.command(&programs.kiln, &variables)
    };
    let (mut on, mut off) = (with("on"), with("off"));
    let (mut on_ms, mut off_ms) = (Series::default(), Series::default());
    for pair in 0..pairs + UNCOUNTED {
        // Each of the two goes first in every other pair.
        let first_off = (pair % 2 == 0).then(|| unit.time(&mut off)).transpose()?;
        let one = unit.time(&mut on)?;
        let other = first_off.map_or_else(|| unit.time(&mut off), Ok)?;
        if pair >= UNCOUNTED {
            on_ms.push(one);
            off_ms.push(other);
        }
    }
    let after = kiln.stats()?.total;
    let compiled = 2 * (pairs + UNCOUNTED) as u64;
    let refreshed = |counts: &Counts| counts.miss_reasons.get("refresh").copied().unwrap_or(0);
    if refreshed(&after) - refreshed(&before) != compiled {
        return Err(Failure::NotMeasured(format!(
            "{} was not always stored: {after:?}",
            unit.name
        )));
    }
    let mut table = Table::new(format!("A compile, {}", unit.name));
    table.row("observed / not observed", Unit::Ratio, &on_ms.over(&off_ms));
    table.row("observed", Unit::Milliseconds, &on_ms);
    table.row("not observed", Unit::Milliseconds, &off_ms);
    Ok(table)
}
