//! Waiting for what another job compiles, and letting others wait for what this one compiles.
//!
//! A miss asks the server for the lease of what is about to be compiled. Who gets it compiles, says while it
//! does that it lives, and tells how it ended. Everybody else may wait: then cargo's token is given back
//! ([`crate::jobserver`]), so that cargo starts another crate meanwhile, and jobs that start together fan out
//! over the graph. A result that comes is looked up as any: its input set is evaluated here, and what does not
//! hold is compiled. Nothing but time depends on a lease; where anything is in doubt the unit is compiled.
//!
//! [`Turn`] is the state of one unit's wrapper in this, called by [`crate::wrapper`] and [`crate::script`];
//! [`hold`] says that it lives, [`key`] names what is compiled, [`patience`] decides how long waiting is right, by how
//! fast this machine is ([`speed`]).

mod hold;
pub(crate) mod key;
mod patience;
mod speed;

use std::time::{Duration, Instant};

use kiln_storage::api::{Holder, LeaseRequest, LeaseResponse, Outcome, ReleaseRequest};
use kiln_storage::record::Cost;
use kiln_storage::{LeaseKey, ResultKey, reasons};

use self::hold::Hold;
use self::patience::{Patience, patience};
use crate::client::ClientError;
use crate::config::{Leases, Mode};
use crate::engine::Engine;
use crate::inputs::Unknown;
use crate::jobserver::{Given, Jobserver};
use crate::limits::{
    LEASE_ANSWER, LEASE_TURN, MAX_LEASE_LOOKUPS, PLACE_PAUSE, PLACE_WAIT, TOKEN_WAIT,
};
use crate::places::{Place, Places};

/// What a unit that was no hit does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A result came, or may have: look it up.
    LookUp,
    /// Compile, whoever else does.
    Compile,
    /// The cargo that wanted it is gone: nobody does any more.
    Leave,
}

/// Notes how long a unit took to compile here.
pub(crate) fn took(engine: &Engine<'_>, cost: &Cost) {
    if let Some(recorded) = engine.expected {
        speed::note(engine.dir, recorded, Duration::from_millis(cost.wall_ms));
    }
}

/// How a compile ended that succeeded, for those who wait: whether, and as what, it was stored. What stands in the way
/// here and now is a failure: somebody else may store it.
pub(crate) fn ended(stored: &Result<Option<ResultKey>, Unknown>) -> ReleaseRequest {
    match stored {
        Ok(Some(result)) => ReleaseRequest::Stored { result: *result },
        Ok(None) => ReleaseRequest::Abandoned,
        Err(unknown) if reasons::is_passing(unknown.reason) => ReleaseRequest::Failed,
        Err(_) => ReleaseRequest::NotStored,
    }
}

/// Whether the cargo is gone that started this process. Others may end before what they start.
fn is_left(engine: &Engine<'_>) -> bool {
    engine.env.get("CARGO").is_some() && engine.started_by != rustix::process::getppid()
}

/// One unit's turn, from its first miss to the end of its compile. When it is dropped, a token that was given
/// back is owed, and a lease that was not released is lost to those who wait.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    key: Option<LeaseKey>,
    /// Results that were told and do not hold here.
    known: Vec<ResultKey>,
    jobserver: Option<Jobserver>,
    given: Option<Given>,
    /// Of those whom cargo has compile, or who may have to.
    place: Option<Place>,
    /// Of those who do on this machine, once it was asked for; none inside where there is none to be had.
    place_here: Option<Option<Place>>,
    /// Whether it runs what may start a cargo, whose compilers would wait for the place of this one.
    is_script: bool,
    hold: Option<Hold>,
    /// How long others were waited for.
    waited: Duration,
    /// Why waiting ended without a result.
    abandoned: Option<String>,
}

impl Turn {
    /// A turn of what has this key; none is never waited for.
    pub(crate) fn new(key: Option<LeaseKey>) -> Self {
        Self { key, ..Self::default() }
    }

    /// The turn of a build script.
    pub(crate) fn of_script(key: Option<LeaseKey>) -> Self {
        Self { is_script: true, ..Self::new(key) }
    }

    /// Whether leases are asked for at all.
    pub(crate) fn is_wanted(engine: &Engine<'_>) -> bool {
        let mode = matches!(engine.config.mode, Mode::ReadWrite | Mode::Read);
        mode && engine.config.leases == Leases::On && !engine.faults.are_too_many()
    }

    /// Whether another compiled what this one would have: it was waited for, or was done before there was a place.
    pub(crate) fn has_joined(&self) -> bool {
        self.has_waited() || !self.known.is_empty()
    }

    fn has_waited(&self) -> bool {
        !self.waited.is_zero()
    }

    /// What a miss is called that was no hit for this reason, and may have waited in vain since.
    pub(crate) fn miss(
        &self,
        reason: &'static str,
        detail: String,
    ) -> (Outcome, &'static str, String) {
        match &self.abandoned {
            Some(why) => (Outcome::Miss, "wait-abandoned", why.clone()),
            None => (Outcome::Miss, reason, detail),
        }
    }

    /// Gets the lease, or waits for who has it.
    pub(crate) fn next(&mut self, engine: &mut Engine<'_>) -> Step {
        let asks = self.hold.is_none() && self.known.len() < MAX_LEASE_LOOKUPS;
        // Who could not compile yet leaves the lease to others.
        let is_held_up = asks && self.key.is_some() && self.take_place(engine);
        let step = match self.key.filter(|_| asks) {
            Some(_) if is_held_up && is_left(engine) => Step::Leave,
            Some(key) => {
                let key = self.narrow(engine, key);
                self.ask(engine, key)
            }
            None => Step::Compile,
        };
        if self.has_waited() || is_held_up {
            engine.end_phase("wait");
        }
        if step == Step::Compile && self.has_waited() && self.abandoned.is_none() {
            let why = match self.known.is_empty() {
                true => "whoever compiled it ended without a result",
                false => "what another job compiled does not hold here",
            };
            self.abandoned = Some(why.to_owned());
        }
        step
    }

    /// What was told last does not hold here: from now on only those are waited for that differ in the same way.
    fn narrow(&mut self, engine: &Engine<'_>, key: LeaseKey) -> LeaseKey {
        let told = self.known.last();
        let key = told.and_then(|told| key::narrowed(engine, key, told)).unwrap_or(key);
        self.key = Some(key);
        key
    }

    /// A compile begins, for whatever reason: a token is taken in place of one that was given back, or what others owe
    /// is repaid.
    pub(crate) fn compiles(&mut self, engine: &Engine<'_>) {
        let given = self.given.take();
        match (given, self.jobserver(engine)) {
            (Some(given), Some(jobserver)) => jobserver.take_back(given, TOKEN_WAIT),
            (_, jobserver) => jobserver.into_iter().for_each(Jobserver::repay),
        }
        // It may owe one now.
        self.take_place(engine);
    }

    /// Takes a place among those who compile, of cargo's and then of the machine's; whether there was none for a while.
    fn take_place(&mut self, engine: &Engine<'_>) -> bool {
        let began = Instant::now();
        let has_one = self.place.is_some();
        let jobserver = self.jobserver(engine);
        let jobs = jobserver.map(|own| own.jobs());
        let place = jobserver.filter(|_| !has_one);
        let place = place.and_then(|own| own.place(PLACE_WAIT, || is_left(engine)));
        self.place = self.place.take().or(place);
        if self.place_here.is_none() && self.key.is_some() && !self.is_script {
            let places = Places::here(engine.env, jobs);
            self.place_here = Some(places.and_then(|places| places.place(|| is_left(engine))));
        }
        began.elapsed() >= PLACE_PAUSE
    }

    fn jobserver(&mut self, engine: &Engine<'_>) -> Option<&Jobserver> {
        if self.jobserver.is_none() {
            self.jobserver = Jobserver::of_cargo(engine.env, engine.dir);
        }
        self.jobserver.as_ref()
    }

    fn ask(&mut self, engine: &mut Engine<'_>, key: LeaseKey) -> Step {
        let (mut wait, mut over_ms) = (Duration::ZERO, None);
        loop {
            let began = Instant::now();
            let answer = self.question(engine, key, (wait, over_ms));
            if !wait.is_zero() {
                self.waited += began.elapsed();
            }
            let holder = match answer {
                Some(LeaseResponse::Stored { result }) => {
                    self.known.push(result);
                    self.abandoned = None;
                    return Step::LookUp;
                }
                Some(LeaseResponse::Granted { id }) => {
                    self.granted(engine, id);
                    // Whoever had it before may have stored a result, and not have come to say so.
                    return match self.has_waited() && self.hold.is_some() {
                        true => Step::LookUp,
                        false => Step::Compile,
                    };
                }
                Some(LeaseResponse::Held { .. }) if is_left(engine) => return Step::Leave,
                Some(LeaseResponse::Held { holder }) => holder,
                Some(LeaseResponse::Free) => return self.gives_up("it failed elsewhere"),
                None => return self.gives_up("the server left"),
            };
            // An older server does not know what it is to take over.
            let is_kept = over_ms.take().is_some_and(|age| holder.age_ms >= age);
            match self.patience(engine, &holder) {
                Patience::Wait(longest) => {
                    wait = longest.min(LEASE_TURN);
                    self.give(engine);
                }
                Patience::TakeOver(why) if !is_kept => {
                    self.abandoned = Some(why);
                    (wait, over_ms) = (Duration::ZERO, Some(holder.age_ms));
                }
                Patience::TakeOver(why) | Patience::Compile(why) => {
                    self.abandoned = Some(why);
                    return Step::Compile;
                }
            }
        }
    }

    /// Compiles after all, for this reason where it has waited and there is no better one.
    fn gives_up(&mut self, why: &str) -> Step {
        if self.has_waited() && self.abandoned.is_none() {
            self.abandoned = Some(why.to_owned());
        }
        Step::Compile
    }

    /// One question; none when the server does not answer it.
    fn question(
        &self,
        engine: &mut Engine<'_>,
        key: LeaseKey,
        (wait, over_ms): (Duration, Option<u64>),
    ) -> Option<LeaseResponse> {
        let request = LeaseRequest {
            key,
            asker: engine.event.id.clone(),
            unit: engine.named.name.clone(),
            run: engine.event.run.clone(),
            job: engine.event.job.clone(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            known: self.known.clone(),
            over_ms,
        };
        let began = Instant::now();
        let client = engine.connect().ok()?;
        match client.json("POST", "/v1/leases", &request, wait + LEASE_ANSWER) {
            Ok(answer) => Some(answer),
            // An older server, or one that does not want to be asked so often.
            Err(ClientError::Refused(..)) => None,
            Err(_) => {
                engine.client = None;
                // Many wait at a time, and all of them are cut off when the server, or what is before it, is started anew.
                // Who was cut off has lost no time; the next question tells whether the server is there.
                if wait.is_zero() || began.elapsed() >= wait {
                    engine.faults.count();
                }
                None
            }
        }
    }

    fn patience(&self, engine: &Engine<'_>, holder: &Holder) -> Patience {
        let cost = engine.expected.map(|recorded| speed::here(engine.dir, recorded));
        patience(cost, holder, self.waited)
    }

    /// A lease is only kept by who can store what it makes.
    fn granted(&mut self, engine: &mut Engine<'_>, id: String) {
        self.hold = Hold::begin(engine, id);
        if engine.config.mode != Mode::ReadWrite {
            self.end(engine, &ReleaseRequest::Abandoned);
        }
    }

    /// Gives the token and the places to others, before a wait.
    fn give(&mut self, engine: &Engine<'_>) {
        (self.place, self.place_here) = (None, None);
        if self.given.is_none() {
            self.given = self.jobserver(engine).and_then(Jobserver::give);
        }
    }

    /// Tells those who wait how the compile ended.
    pub(crate) fn end(&mut self, engine: &mut Engine<'_>, how: &ReleaseRequest) {
        if let Some(hold) = self.hold.take() {
            hold.release(engine, how);
        }
    }
}
