//! One hit as a whole process: the same rustc command line again and again, its outputs removed
//! each time, through Kiln, through the blind replay, and as a process that does nothing.

use std::ffi::OsString;
use std::path::Path;

use crate::cargo::Profile;
use crate::events;
use crate::failure::{Failure, Outcome, at};
use crate::place::Kiln;
use crate::programs::Programs;
use crate::replay::{Mode, Recording};
use crate::report::{self, Table, Unit};
use crate::statistics::Series;
use crate::tools;
use crate::unit::RecordedUnit;
use crate::warm::replayed;

/// Runs before the first that counts.
const UNCOUNTED: usize = 5;

/// Measures three units of the dev profile, each so many times.
///
/// # Errors
/// When a build fails, or a run was no hit.
pub fn run(programs: &Programs, project: &Path, dir: &Path, times: usize) -> Outcome<()> {
    report::progress("wrapper: two cold builds first");
    let recorded = replayed(programs, project, Profile::Dev, dir, Mode::Record);
    recorded.from_nothing()?;
    let kiln = Kiln::new(&programs.kiln, dir.join("kiln"));
    // The same target directory: the recorded command lines name it.
    kiln.build(project, Profile::Dev, recorded.target.clone()).from_nothing()?;
    let recordings = dir.join("recordings");
    let recordings = Recording::all(&recordings).map_err(at(&recordings))?;
    let copy = replayed(programs, project, Profile::Dev, dir, Mode::Copy).variables;
    for unit in RecordedUnit::choose(&recordings) {
        report::progress(&format!("wrapper: {}, {times} times", unit.name));
        let bench = Bench { programs, kiln: &kiln, copy: &copy, unit: &unit };
        bench.run(times)?.print();
    }
    Ok(())
}

struct Bench<'a> {
    programs: &'a Programs,
    kiln: &'a Kiln,
    copy: &'a [(&'static str, OsString)],
    unit: &'a RecordedUnit,
}

impl Bench<'_> {
    fn run(&self, times: usize) -> Outcome<Table> {
        let unit = self.unit;
        let variables = self.kiln.variables();
        let mut kiln = unit.command(&self.programs.kiln, &variables);
        let mut replay = unit.command(&self.programs.replay, self.copy);
        let mut no_op = unit.command(&self.programs.no_op, &[]);
        for _ in 0..UNCOUNTED {
            unit.time(&mut replay)?;
            unit.time(&mut kiln)?;
        }
        let before = self.kiln.stats()?.total;
        let (mut kiln_ms, mut replay_ms, mut no_op_ms) =
            (Series::default(), Series::default(), Series::default());
        for _ in 0..times {
            kiln_ms.push(unit.time(&mut kiln)?);
            replay_ms.push(unit.time(&mut replay)?);
            no_op_ms.push(unit.time(&mut no_op)?);
        }
        let after = self.kiln.stats()?.total;
        if after.hit_local - before.hit_local != times as u64 {
            return Err(Failure::NotMeasured(format!("{} was not always a hit", unit.name)));
        }
        let mut table = Table::new(format!("One hit, {}", unit.name));
        table.row("kiln / blind replay by copy", Unit::Ratio, &kiln_ms.over(&replay_ms));
        table.row("kiln / a process that does nothing", Unit::Ratio, &kiln_ms.over(&no_op_ms));
        table.row("kiln", Unit::Milliseconds, &kiln_ms);
        table.row("blind replay by copy", Unit::Milliseconds, &replay_ms);
        table.row("a process that does nothing", Unit::Milliseconds, &no_op_ms);
        self.phases(&mut table, times)?;
        self.tools(&mut table)?;
        // What the next unit reads must be what Kiln stored, not the recorder's.
        unit.time(&mut kiln)?;
        Ok(table)
    }

    fn phases(&self, table: &mut Table, times: usize) -> Outcome<()> {
        let events = events::newest(self.kiln.dir(), times)?;
        for (phase, series) in events::phases(&events) {
            table.row(&format!("kiln says: {phase}"), Unit::Microseconds, &series);
        }
        Ok(())
    }

    fn tools(&self, table: &mut Table) -> Outcome<()> {
        let unit = self.unit;
        let variables = self.kiln.variables();
        let list = self.kiln.dir().with_file_name("system-calls");
        let of_kiln = tools::system_calls(unit, &self.programs.kiln, &variables, &list)?;
        let of_replay = tools::system_calls(unit, &self.programs.replay, self.copy, &list)?;
        counted(table, "system calls", "strace", of_kiln, of_replay);
        let of_kiln = tools::instructions(unit, &self.programs.kiln, &variables)?;
        let of_replay = tools::instructions(unit, &self.programs.replay, self.copy)?;
        counted(
            table,
            "instructions, million",
            "valgrind",
            of_kiln.map(million),
            of_replay.map(million),
        );
        Ok(())
    }
}

fn million(count: f64) -> f64 {
    count / 1e6
}

fn counted(table: &mut Table, what: &str, tool: &str, kiln: Option<f64>, replay: Option<f64>) {
    match (kiln, replay) {
        (Some(kiln), Some(replay)) => {
            table.value(&format!("kiln: {what}"), Unit::Count, kiln);
            table.value(&format!("blind replay: {what}"), Unit::Count, replay);
        }
        _ => table.note(format!("{what}: not measured: {tool} is not installed.")),
    }
}
