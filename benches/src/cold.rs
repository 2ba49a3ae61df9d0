//! A cold build through an empty cache against the same build without a wrapper. A wrapper that
//! breaks cargo's pipelining shows here: dependents would start later.

use std::path::Path;

use crate::cargo::Profile;
use crate::failure::{Failure, Outcome};
use crate::place::Kiln;
use crate::programs::Programs;
use crate::report::{self, Table, Unit};
use crate::statistics::Series;
use crate::warm::plain;

/// Measures one profile, with so many pairs.
///
/// # Errors
/// When a build fails, or the cache was not cold.
pub fn run(
    programs: &Programs,
    project: &Path,
    profile: Profile,
    dir: &Path,
    pairs: usize,
) -> Outcome<()> {
    report::progress(&format!("cold, {}: {pairs} pairs", profile.name()));
    let kiln = Kiln::new(&programs.kiln, dir.join("kiln"));
    let through = kiln.build(project, profile, dir.join("target-kiln"));
    let without = plain(project, profile, dir.join("target-plain"));
    let (mut kiln_s, mut plain_s) = (Series::default(), Series::default());
    let mut units = 0;
    for pair in 0..pairs {
        kiln.forget()?;
        // Each of the two goes first in every other pair.
        if pair % 2 == 0 {
            plain_s.push(without.from_nothing()?);
        }
        kiln_s.push(through.from_nothing()?);
        let counts = kiln.stats()?.build;
        if counts.miss == 0 || counts.hit_local + counts.hit_remote > 0 {
            return Err(Failure::NotMeasured(format!(
                "the cold build was no cold build: {counts:?}"
            )));
        }
        units = counts.units;
        if pair % 2 == 1 {
            plain_s.push(without.from_nothing()?);
        }
    }
    let mut table = Table::new(format!("Cold build, ripgrep, {}", profile.name()));
    table.row("kiln, empty cache / plain cargo", Unit::Ratio, &kiln_s.over(&plain_s));
    table.row("kiln, empty cache", Unit::Seconds, &kiln_s);
    table.row("plain cargo", Unit::Seconds, &plain_s);
    if let (Some(kiln), Some(plain)) = (kiln_s.median(), plain_s.median()) {
        table.value(
            "kiln over plain cargo, by unit",
            Unit::Milliseconds,
            (kiln - plain) * 1000.0 / units.max(1) as f64,
        );
    }
    table.note(format!("{units} units."));
    table.print();
    Ok(())
}
