//! [`Wanted`]: whether a maker is one whose results are to go. Pure.
//!
//! A run and a job fit by what the server knows or by what the maker says: who says that it is another one than it is
//! has more of its own removed by that, and never less where the server knows better.

use kiln_storage::Scope;

use super::RevokeRequest;
use crate::index::makers::Maker;
use crate::maker::{By, Job};

/// Which makers are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted(RevokeRequest);

impl Wanted {
    /// Those of a request; none: nothing is said of them.
    pub(crate) fn of(request: &RevokeRequest) -> Option<Self> {
        let RevokeRequest { run, job, principal, toolchain, scope, since_ms, .. } = request;
        let texts = [run, job, principal, toolchain, scope];
        let empty = texts.iter().any(|text| text.as_ref().is_some_and(String::is_empty));
        let some = texts.iter().any(|text| text.is_some()) || since_ms.is_some();
        (some && !empty).then(|| Self(request.clone()))
    }

    /// The id of the scope, where one is meant.
    pub(crate) fn scope(&self) -> Option<String> {
        self.0.scope.as_ref().map(|text| match text.split_once('@') {
            Some((repository, reference)) => Scope::new(repository, reference).id(),
            None => text.clone(),
        })
    }

    /// Whether a maker is meant.
    pub(crate) fn fits(&self, maker: &Maker) -> bool {
        let RevokeRequest { run, job, principal, toolchain, .. } = &self.0;
        let fits = |text: &Option<String>, does: fn(&Maker, &str) -> bool| {
            text.as_ref().is_none_or(|text| does(maker, text))
        };
        fits(run, is_of_run)
            && fits(job, is_of_job)
            && fits(principal, is_called)
            && fits(toolchain, is_by_toolchain)
    }
}

fn is_of_run(maker: &Maker, text: &str) -> bool {
    // A later attempt is called `<run>.<attempt>`.
    let is =
        |run: &str| run == text || run.strip_prefix(text).is_some_and(|rest| rest.starts_with('.'));
    let known = match &maker.by {
        By::Job(job) => is(&format!("{}.{}", job.run_id, job.run_attempt)),
        _ => false,
    };
    known || is(&maker.said.run)
}

fn is_of_job(maker: &Maker, text: &str) -> bool {
    let known = match &maker.by {
        By::Job(job) => [&job.workflow_ref, &job.job_workflow_ref].iter().any(|one| *one == text),
        _ => false,
    };
    known || maker.said.job == text
}

/// The whole digest may be given, or its beginning; kept is a beginning.
fn is_by_toolchain(maker: &Maker, text: &str) -> bool {
    let said = maker.said.toolchain.as_str();
    !said.is_empty() && (said.starts_with(text) || text.starts_with(said))
}

fn is_called(maker: &Maker, text: &str) -> bool {
    if maker.by.name() == text {
        return true;
    }
    match &maker.by {
        By::User { .. } => matches!(text, "user" | "local user"),
        By::Behind { .. } => text == "behind",
        By::Job(job) => text.split_once(':').is_some_and(|(kind, of)| is_of(job, kind, of)),
        By::Unknown | By::Anybody | By::Token { .. } => false,
    }
}

fn is_of(job: &Job, kind: &str, of: &str) -> bool {
    match kind {
        "repository" => of == job.repository_id || of == job.repository,
        "actor" => of == job.actor_id,
        "ref" => of == job.reference,
        "commit" => of == job.sha,
        "event" => of == job.event_name,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maker::Said;

    fn job() -> Maker {
        let job = Job {
            repository_id: "1234".into(),
            repository: "o/r".into(),
            run_id: "42".into(),
            run_attempt: "2".into(),
            job_workflow_ref: "o/r/.github/workflows/ci.yml@refs/heads/main".into(),
            reference: "refs/pull/7/merge".into(),
            actor_id: "99".into(),
            ..Job::default()
        };
        let said = Said { run: "43".into(), job: "test".into(), toolchain: "0123456789ab".into() };
        Maker { by: By::Job(Box::new(job)), said }
    }

    fn fits(change: impl FnOnce(&mut RevokeRequest)) -> bool {
        let mut request = RevokeRequest::default();
        change(&mut request);
        Wanted::of(&request).unwrap().fits(&job())
    }

    #[test]
    fn something_has_to_be_said() {
        assert_eq!(Wanted::of(&RevokeRequest { remove: true, ..RevokeRequest::default() }), None);
        let empty = RevokeRequest { run: Some(String::new()), ..RevokeRequest::default() };
        assert_eq!(Wanted::of(&empty), None, "an unset variable is no run");
        assert!(fits(|r| r.since_ms = Some(1)));
    }

    #[test]
    fn a_run_fits_by_what_is_known_and_by_what_is_said() {
        for (run, does) in
            [("42", true), ("42.2", true), ("42.1", false), ("43", true), ("4", false)]
        {
            assert_eq!(fits(|r| r.run = Some(run.into())), does, "{run}");
        }
        for (name, does) in [
            ("test", true),
            ("o/r/.github/workflows/ci.yml@refs/heads/main", true),
            ("o/r/.github/workflows/ci.yml", false),
        ] {
            assert_eq!(fits(|r| r.job = Some(name.into())), does, "{name}");
        }
    }

    #[test]
    fn somebody_fits_by_what_is_known_alone() {
        for (name, does) in [
            ("repository:1234", true),
            ("repository:o/r", true),
            ("ref:refs/pull/7/merge", true),
            ("actor:99", true),
            ("actor:9", false),
            ("token ci", false),
            (&job().by.name(), true),
            ("", false),
        ] {
            assert_eq!(is_called(&job(), name), does, "{name}");
        }
        let token = Maker { by: By::Token { name: "ci".into() }, ..job() };
        assert!(is_called(&token, "token ci") && !is_called(&token, "repository:1234"));
        let user = Maker { by: By::User { uid: 1 }, ..job() };
        assert!(is_called(&user, "local user") && !is_called(&user, "user 2"));
    }

    #[test]
    fn all_have_to_fit() {
        let two = |run: &str, toolchain: &str| {
            fits(|r| {
                r.run = Some(run.into());
                r.toolchain = Some(toolchain.into());
            })
        };
        assert!(two("42", "0123") && two("42", "0123456789abcdef"));
        assert!(!two("42", "1") && !two("41", "0123"));
    }
}
