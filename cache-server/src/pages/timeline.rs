//! The units of a job over time: lanes as cargo ran them, from when each ended and how long it took. Pure.

use std::cmp::Reverse;

use super::html::Html;
use super::shown::{count, outcome, short, time};
use crate::history::chunk::Kept;
use crate::limits::{MAX_LANES, MAX_SHOWN_JOBS, MAX_TIMELINE_BARS};
use crate::report::Job;

/// Width of a drawing; what is shown is as wide as there is room.
const WIDTH: u64 = 1000;

/// Height of a lane, and of a bar in it.
const LANE: u64 = 12;
const BAR: u64 = 9;

/// Timelines that are not folded.
const OPEN: usize = 6;

/// Marks on the axis of time.
const MARKS: u64 = 4;

/// A unit in its lane.
#[derive(Debug, Clone, Copy)]
struct Bar<'a> {
    event: &'a Kept,
    begins_ms: u64,
    lane: usize,
}

/// A job's units in lanes.
#[derive(Debug)]
struct Lanes<'a> {
    bars: Vec<Bar<'a>>,
    lanes: usize,
    begins_ms: u64,
    ends_ms: u64,
    left_out: usize,
}

fn begins(event: &Kept) -> u64 {
    event.at_ms.saturating_sub(event.wall_ms)
}

/// Puts units into lanes: each into the first that is free when it begins.
fn lanes(events: &[Kept], max: usize) -> Option<Lanes<'_>> {
    let begins_ms = events.iter().map(begins).min()?;
    let ends_ms = events.iter().map(|event| event.at_ms).max()?.max(begins_ms + 1);
    let mut shown: Vec<&Kept> = events.iter().collect();
    shown.sort_by_key(|event| Reverse(event.wall_ms));
    shown.truncate(max);
    shown.sort_by_key(|event| (begins(event), event.at_ms, event.id));
    let mut free: Vec<u64> = Vec::new();
    let mut bars = Vec::with_capacity(shown.len());
    for event in shown {
        let begins_ms = begins(event);
        let lane = match free.iter().position(|from| *from <= begins_ms) {
            Some(lane) => lane,
            None if free.len() < MAX_LANES => {
                free.push(0);
                free.len() - 1
            }
            None => MAX_LANES - 1,
        };
        free[lane] = event.at_ms;
        bars.push(Bar { event, begins_ms, lane });
    }
    let left_out = events.len() - bars.len();
    Some(Lanes { bars, lanes: free.len(), begins_ms, ends_ms, left_out })
}

/// Writes the timelines of a run's jobs, folded where there are many.
pub(super) fn write(html: &mut Html, jobs: &[Job]) {
    let shown: Vec<&Job> = jobs.iter().filter(|job| !job.events.is_empty()).collect();
    let first_ms = shown.iter().flat_map(|job| job.events.iter().map(begins)).min();
    let max = MAX_TIMELINE_BARS / shown.len().clamp(1, MAX_SHOWN_JOBS);
    for (at, job) in shown.iter().take(MAX_SHOWN_JOBS).enumerate() {
        let Some(lanes) = lanes(&job.events, max) else { continue };
        let open: &[(&'static str, &str)] = if at < OPEN { &[("open", "")] } else { &[] };
        html.element("details", open, |html| {
            html.element("summary", &[], |html| {
                html.name(&job.row.job);
                let after = lanes.begins_ms.saturating_sub(first_ms.unwrap_or_default());
                let after = if after > 0 {
                    format!(", {} after the first", time(after))
                } else {
                    String::new()
                };
                let took = time(lanes.ends_ms - lanes.begins_ms);
                let at_once = count(lanes.lanes as u64, "lane");
                html.line("span", &[("class", "note")], &format!(" {took} in {at_once}{after}"));
            });
            draw(html, &job.row.job, &lanes);
        });
    }
    if shown.len() > MAX_SHOWN_JOBS {
        let more = count((shown.len() - MAX_SHOWN_JOBS) as u64, "further job");
        html.line("p", &[("class", "note")], &format!("{more} not drawn."));
    }
}

fn draw(html: &mut Html, job: &str, lanes: &Lanes<'_>) {
    let height = (lanes.lanes as u64 * LANE).to_string();
    let span = lanes.ends_ms - lanes.begins_ms;
    let scale = |ms: u64| ms.saturating_mul(WIDTH * 10) / span;
    let label = format!("{job}: {} over {}", count(lanes.bars.len() as u64, "unit"), time(span));
    let view = format!("0 0 {WIDTH} {height}");
    let attributes = [
        ("class", "timeline"),
        ("viewBox", &*view),
        ("height", &*height),
        ("preserveAspectRatio", "none"),
        ("role", "img"),
        ("aria-label", &*label),
    ];
    html.element("svg", &attributes, |html| {
        for bar in &lanes.bars {
            let tenths = |tenths: u64| format!("{}.{}", tenths / 10, tenths % 10);
            let x = tenths(scale(bar.begins_ms - lanes.begins_ms));
            let width = tenths(scale(bar.event.at_ms.saturating_sub(bar.begins_ms)).max(8));
            let (y, bar_height) = ((bar.lane as u64 * LANE).to_string(), BAR.to_string());
            let (class, told) = outcome(bar.event.outcome);
            let attributes = [
                ("class", class),
                ("x", &*x),
                ("y", &*y),
                ("width", &*width),
                ("height", &*bar_height),
            ];
            html.element("rect", &attributes, |html| {
                let unit = &bar.event.unit;
                let wall = time(bar.event.wall_ms);
                let name = [&unit.crate_name, &unit.version, &unit.kind].map(|text| short(text));
                let title = format!("{}: {told}, {wall}", name.join(" "));
                html.line("title", &[], &title);
            });
        }
    });
    html.element("div", &[("class", "axis"), ("aria-hidden", "true")], |html| {
        (0..=MARKS).for_each(|at| html.line("span", &[], &time(span * at / MARKS)));
    });
    if lanes.left_out > 0 {
        let text = format!("{} that took less not drawn.", count(lanes.left_out as u64, "unit"));
        html.line("p", &[("class", "note")], &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::tests::event;
    use kiln_storage::api::Outcome;

    fn kept(id: u64, begins: u64, ends: u64) -> Kept {
        let mut event = event(&id.to_string(), "b", Outcome::Miss);
        (event.at_ms, event.wall_us) = (ends, (ends - begins) * 1000);
        Kept::of(&event, id)
    }

    #[test]
    fn units_that_run_at_once_have_lanes_of_their_own() {
        let events = [kept(1, 0, 10), kept(2, 0, 4), kept(3, 4, 9), kept(4, 5, 6), kept(5, 10, 12)];
        let found = lanes(&events, 9).unwrap();
        let of: Vec<_> = found.bars.iter().map(|bar| (bar.event.id, bar.lane)).collect();
        assert_eq!(of, [(2, 0), (1, 1), (3, 0), (4, 2), (5, 0)]);
        assert_eq!((found.lanes, found.begins_ms, found.ends_ms, found.left_out), (3, 0, 12, 0));
    }

    #[test]
    fn the_longest_are_drawn_and_lanes_are_bounded() {
        let events: Vec<Kept> = (0..200).map(|n| kept(n, 0, n + 1)).collect();
        let found = lanes(&events, 100).unwrap();
        assert_eq!((found.bars.len(), found.left_out, found.lanes), (100, 100, MAX_LANES));
        assert!(found.bars.iter().all(|bar| bar.event.wall_ms > 100 && bar.lane < MAX_LANES));
        assert!(lanes(&[], 9).is_none());
        // Nothing is divided by a span of nothing.
        let mut html = Html::default();
        draw(&mut html, "j", &lanes(&[kept(1, 5, 5)], 9).unwrap());
        assert!(html.finish().contains("<rect class=\"miss\" x=\"0.0\""));
    }
}
