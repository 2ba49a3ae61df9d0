//! `kiln report`: the report of a run, for people, programs and the summary of a step; a gate on its hit rate.
//!
//! The server makes the report; here it gets its words.

mod text;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use kiln_server::report::markdown::{self, Words};
use kiln_storage::api::report::{Measures, RunReport, RunsResponse};
use kiln_storage::api::{Cause, Counts};
use kiln_storage::limits;

use super::explain::in_query;
use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::env::Env;
use crate::explain::Told;
use crate::identity::Identity;
use crate::{local, say};

/// Most runs and jobs named where one is not known.
const MAX_PROPOSED: usize = 8;

/// `kiln report`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The run [default: the one that is under way here, else the newest]
    run: Option<String>,
    /// One job of it
    #[arg(long)]
    job: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
    /// Exit with status 1 when the hit rate is lower
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_under: Option<f64>,
    /// Add it in Markdown to the end of a file, e.g. "$GITHUB_STEP_SUMMARY"
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// For programs: docs/report.md has the schema.
    Json,
    /// Markdown.
    Md,
    /// A page in one file, of the whole run.
    Html,
}

/// A percentage, with or without its sign.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>();
    let share = number.ok().filter(|share| (0.0..=100.0).contains(share));
    share.ok_or_else(|| "a percentage from 0 to 100, e.g. 80%".to_owned())
}

/// Words for causes.
struct Known;

impl Words for Known {
    fn cause(&self, cause: &Cause) -> String {
        Told::new(cause).text
    }
}

/// Why there is no report.
enum Failure {
    Server(ClientError),
    NoRun { asked: Option<String>, known: Vec<String>, alone: Option<String> },
    NoJob { asked: String, known: Vec<String> },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Server(error)
    }
}

pub(super) fn run(env: &Env, config: &Config, arguments: &Arguments) -> ExitCode {
    let asked = arguments.run.clone().or_else(|| under_way(env, config));
    // Events are kept by the server; one is started to read them.
    let read = local::connect(env, config).map_err(Failure::from).and_then(|mut client| {
        let report = narrow(read(&mut client, asked)?, arguments.job.as_deref())?;
        let html = arguments.format == Form::Html;
        let page = html.then(|| page(&mut client, &report.run)).transpose()?;
        Ok((report, page.unwrap_or_default()))
    });
    let (report, page) = match read {
        Ok(read) => read,
        Err(failure) => return tell(failure),
    };
    say::result(&match arguments.format {
        Form::Json => serde_json::to_string_pretty(&report).unwrap_or_default(),
        Form::Md => markdown::markdown(&report, &Known),
        Form::Text => text::text(&report),
        Form::Html => page,
    });
    if let Some(file) = &arguments.append
        && let Err(error) = append(file, &markdown::markdown(&report, &Known))
    {
        say::error(&format!("the report cannot be added to {}: {error}", file.display()), &[]);
        return ExitCode::FAILURE;
    }
    match arguments.fail_under.and_then(|least| too_low(&report.total, least)) {
        Some(fact) => {
            say::error(&fact, &[]);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// The run that settings or a CI service name. The builds of somebody are runs of their own each: there it is the
/// newest.
pub(super) fn under_way(env: &Env, config: &Config) -> Option<String> {
    let who = Identity::find(env, config, &env.cwd.clone().unwrap_or_default());
    (config.run.is_some() || who.about.is_some()).then_some(who.run)
}

/// The sentence of a gate that is not passed.
fn too_low(measures: &Measures, least: f64) -> Option<String> {
    match measures.hit_rate {
        Some(rate) if rate >= least => None,
        Some(rate) => Some(format!("the hit rate is {rate:.1} %, under {least} %")),
        None => Some(format!("no unit could be answered, and {least} % were to hit")),
    }
}

fn append(file: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().create(true).append(true).open(file)?.write_all(text.as_bytes())
}

/// The report of a run, else of the newest.
fn read(client: &mut Client, asked: Option<String>) -> Result<RunReport, Failure> {
    let list = |client: &mut Client, limit: usize| -> Result<Vec<String>, ClientError> {
        let path = format!("/v1/runs?limit={limit}");
        let answer = client.request("GET", &path, &[], limits::REPORT_TIMEOUT)?;
        let answer: RunsResponse =
            serde_json::from_slice(&answer).map_err(|_| ClientError::Foreign("runs"))?;
        Ok(answer.runs.into_iter().map(|run| run.run).collect())
    };
    let run = match &asked {
        Some(run) => run.clone(),
        None => match list(client, 1)?.pop() {
            Some(run) => run,
            None => {
                let alone = alone(client);
                return Err(Failure::NoRun { asked, known: Vec::new(), alone });
            }
        },
    };
    let path = format!("/v1/runs/{}/report.json", in_query(&run));
    match client.request("GET", &path, &[], limits::REPORT_TIMEOUT) {
        Ok(answer) => {
            let report = serde_json::from_slice(&answer);
            Ok(report.map_err(|_| ClientError::Foreign("a report"))?)
        }
        Err(ClientError::Refused(404, _)) => {
            let known = list(client, MAX_PROPOSED)?;
            Err(Failure::NoRun { asked: Some(run), known, alone: alone(client) })
        }
        Err(error) => Err(error.into()),
    }
}

/// Why jobs cannot share their figures where this one is, if so.
fn alone(client: &mut Client) -> Option<String> {
    super::server::info(client).ok()?.remote?.events_stay
}

/// The report as a page; the server makes it, since it has the events.
fn page(client: &mut Client, run: &str) -> Result<String, ClientError> {
    let path = format!("/v1/runs/{}/report.html", in_query(run));
    let page = client.request("GET", &path, &[], limits::REPORT_TIMEOUT)?;
    String::from_utf8(page.to_vec()).map_err(|_| ClientError::Foreign("a page"))
}

/// Leaves out what is of other jobs, when one is asked for; the figures are those of the job then.
fn narrow(mut report: RunReport, job: Option<&str>) -> Result<RunReport, Failure> {
    let Some(job) = job else { return Ok(report) };
    let Some(measures) = report.jobs.iter().find(|of| of.job == job).map(|of| of.measures.clone())
    else {
        let known = report.jobs.into_iter().map(|of| of.job).collect();
        return Err(Failure::NoJob { asked: job.to_owned(), known });
    };
    report.jobs.retain(|of| of.job == job);
    report.slowest.retain(|unit| unit.job == job);
    report.slowest_left_out = measures.counts.miss.saturating_sub(report.slowest.len() as u64);
    report.lost_hits.retain(|unit| unit.job == job);
    let twice = &mut report.twice;
    twice.groups.retain(|group| group.jobs.iter().any(|of| of == job));
    twice.compiles = twice.groups.iter().map(|group| group.compiles).sum();
    twice.cost_ms = twice.groups.iter().fold(0, |sum, group| sum.saturating_add(group.saves_ms));
    let Counts { bypass_reasons, error_reasons, .. } = &measures.counts;
    for (groups, counts) in
        [(&mut report.bypasses, bypass_reasons), (&mut report.errors, error_reasons)]
    {
        groups.retain_mut(|group| {
            group.count = counts.get(&group.reason).copied().unwrap_or_default();
            group.jobs = vec![job.to_owned()];
            group.count > 0
        });
    }
    report.total = measures;
    Ok(report)
}

fn tell(failure: Failure) -> ExitCode {
    let list = |known: &[String]| -> String {
        let named: Vec<&str> = known.iter().take(MAX_PROPOSED).map(String::as_str).collect();
        let more = known.len().saturating_sub(MAX_PROPOSED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("there is {}{more}", named.join(", "))
    };
    match failure {
        Failure::Server(error) => {
            let hint = "kiln doctor looks for the reason";
            say::error(&format!("there is no report: {error}"), &[hint]);
        }
        Failure::NoRun { asked, known, alone } => {
            let hint = match known.is_empty() {
                true => "a build with Kiln makes one; units that cargo finds fresh are not counted"
                    .to_owned(),
                false => list(&known),
            };
            let fact = match asked {
                Some(run) => format!("no run {run:?} is known"),
                None => "no run is known".to_owned(),
            };
            let alone = alone.map(|why| {
                format!("jobs like this one cannot share their figures with others here: {why}")
            });
            let hints: Vec<&str> =
                [Some(hint.as_str()), alone.as_deref()].into_iter().flatten().collect();
            say::error(&fact, &hints);
        }
        Failure::NoJob { asked, known } => {
            say::error(&format!("the run has no job {asked:?}"), &[&list(&known)]);
        }
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::api::report::{ByReason, JobReport, Twice, TwiceGroup};

    #[test]
    fn percentages_are_read_with_and_without_their_sign() {
        assert_eq!(
            (percent("80%"), percent("80"), percent(" 99.5 % ")),
            (Ok(80.0), Ok(80.0), Ok(99.5))
        );
        for bad in ["", "%", "101", "-1", "NaN", "many"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_report_of_a_job_has_the_figures_of_the_job() {
        let job = |name: &str, units: u64| {
            let reasons = std::collections::BTreeMap::from([("incremental".to_owned(), units - 1)]);
            let counts = Counts { units, miss: 1, bypass_reasons: reasons, ..Counts::default() };
            let measures = Measures { counts, ..Measures::default() };
            JobReport { job: name.into(), measures, ..JobReport::default() }
        };
        let reason = |reason: &str| ByReason {
            reason: reason.into(),
            count: 9,
            jobs: vec!["b".into(), "a".into()],
            ..ByReason::default()
        };
        let group = |jobs: [&str; 2], compiles| TwiceGroup {
            jobs: jobs.map(str::to_owned).to_vec(),
            compiles,
            saves_ms: 10 * compiles,
            ..TwiceGroup::default()
        };
        let whole = RunReport {
            jobs: vec![job("a", 3), job("b", 6)],
            slowest_left_out: 7,
            bypasses: vec![reason("incremental"), reason("print")],
            twice: Twice {
                compiles: 5,
                cost_ms: 50,
                groups: vec![group(["a", "b"], 2), group(["b", "c"], 3)],
                ..Twice::default()
            },
            ..RunReport::default()
        };
        let Ok(of_a) = narrow(whole, Some("a")) else { panic!("there is such a job") };
        assert_eq!((of_a.total.counts.units, of_a.slowest_left_out), (3, 1));
        assert_eq!((of_a.twice.compiles, of_a.twice.cost_ms), (2, 20));
        let told: Vec<_> = of_a.bypasses.iter().map(|of| (of.count, of.jobs.join(" "))).collect();
        assert_eq!(told, [(2, "a".to_owned())]);
    }

    #[test]
    fn a_gate_says_in_a_sentence_what_is_too_low() {
        let of = |hit_rate| Measures { hit_rate, ..Measures::default() };
        assert_eq!(too_low(&of(Some(80.0)), 80.0), None);
        assert_eq!(
            too_low(&of(Some(79.9)), 80.0).as_deref(),
            Some("the hit rate is 79.9 %, under 80 %")
        );
        assert!(too_low(&of(None), 1.0).is_some());
    }
}
