//! Many jobs build one graph together: they begin at any time, some die, some are cut off from the server for a
//! while. From one seed it is always the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::*;

const JOBS: usize = 200;
const UNITS: usize = 2000;
/// Compiles of a job at a time, and units that it has begun: who waits takes no turn.
const TURNS: usize = 4;
const BEGUN: usize = 12;

/// Numbers from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What is built: each unit needs some of those before it.
struct Graph {
    needs: Vec<Vec<usize>>,
    cost: Vec<Duration>,
}

impl Graph {
    fn new(chance: &mut Chance) -> Self {
        let needs = (0..UNITS).map(|unit| {
            let count = if unit < 40 { 0 } else { chance.below(4) };
            let near = (unit as u64).min(200);
            let mut needs = Vec::new();
            for _ in 0..count {
                needs.push(unit - 1 - usize::try_from(chance.below(near)).unwrap());
            }
            needs
        });
        let needs = needs.collect();
        let cost = (0..UNITS).map(|_| Duration::from_millis(200 + chance.below(12_000)));
        Self { needs, cost: cost.collect() }
    }
}

/// The server, what is stored there, and what happened.
struct World {
    leases: Arc<Leases>,
    graph: Graph,
    stored: Mutex<HashMap<usize, u64>>,
    granted: AtomicU64,
    /// Compiles without a lease, or whose lease was lost meanwhile.
    alone: AtomicU64,
    joined: AtomicU64,
}

impl World {
    fn is_stored(&self, unit: usize) -> bool {
        self.stored.lock().unwrap().contains_key(&unit)
    }

    fn store(&self, unit: usize) {
        *self.stored.lock().unwrap().entry(unit).or_default() += 1;
    }
}

/// A job: when it is cut off, and its turns to compile.
struct Job {
    world: Arc<World>,
    name: String,
    cut_off: Option<(Instant, Instant)>,
    turns: Semaphore,
}

impl Job {
    fn is_cut_off(&self) -> bool {
        self.cut_off.is_some_and(|(from, to)| (from..to).contains(&Instant::now()))
    }

    /// A question to the server. While the job is cut off it has no answer; one that is open then is not known to be
    /// gone at the other side.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        if self.is_cut_off() {
            return None;
        }
        let mut asked = Open(Some(tokio::spawn(question)));
        let answer = asked.0.as_mut()?;
        let Some((from, _)) = self.cut_off.filter(|(from, _)| *from > Instant::now()) else {
            return answer.await.ok();
        };
        tokio::select! {
            biased;
            answer = answer => answer.ok(),
            () = sleep_until(from) => {
                asked.0 = None;
                None
            }
        }
    }

    async fn unit(&self, unit: usize) {
        let asker = format!("{} {unit}", self.name);
        while !self.world.is_stored(unit) || self.is_cut_off() {
            let (leases, request) = (self.world.leases.clone(), request(unit, &asker));
            match self.ask(async move { leases.ask(SCOPE, request).await }).await {
                None | Some(LeaseResponse::Free) => return self.compile_alone(unit).await,
                Some(LeaseResponse::Held { .. }) => {}
                Some(LeaseResponse::Stored { result: told }) => {
                    assert_eq!(told, result(unit));
                    assert!(self.world.is_stored(unit), "who is told finds it");
                    self.world.joined.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Some(LeaseResponse::Granted { id }) => {
                    self.world.granted.fetch_add(1, Ordering::Relaxed);
                    return self.compile(unit, id.parse().unwrap()).await;
                }
            }
        }
    }

    async fn work(&self, unit: usize) {
        let _turn = self.turns.acquire().await.unwrap();
        tokio::time::sleep(self.world.graph.cost[unit]).await;
    }

    async fn compile_alone(&self, unit: usize) {
        self.world.alone.fetch_add(1, Ordering::Relaxed);
        self.work(unit).await;
        self.world.store(unit);
    }

    async fn compile(&self, unit: usize, id: LeaseId) {
        let leases = self.world.leases.clone();
        let hold = async {
            loop {
                let leases = leases.clone();
                let held = self.ask(async move { leases.hold(SCOPE, id, 0).await }).await;
                if held != Some(true) {
                    // It compiles all the same.
                    std::future::pending::<()>().await;
                }
            }
        };
        let compile = async {
            self.work(unit).await;
            self.world.store(unit);
            let (leases, outcome) =
                (leases.clone(), ReleaseRequest::Stored { result: result(unit) });
            self.ask(async move { leases.release(SCOPE, id, outcome) }).await
        };
        // The last question that says that it lives is open until it has released.
        let released = tokio::select! {
            biased;
            released = compile => released,
            () = hold => None,
        };
        if released != Some(true) {
            self.world.alone.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn build(self: Arc<Self>) {
        let graph = &self.world.graph;
        let mut left: Vec<usize> = graph.needs.iter().map(Vec::len).collect();
        let mut needed_by = vec![Vec::new(); UNITS];
        for (unit, needs) in graph.needs.iter().enumerate() {
            needs.iter().for_each(|need| needed_by[*need].push(unit));
        }
        let mut ready: Vec<usize> = (0..UNITS).rev().filter(|unit| left[*unit] == 0).collect();
        let (mut begun, mut done) = (JoinSet::new(), 0);
        while done < UNITS {
            while begun.len() < BEGUN
                && let Some(unit) = ready.pop()
            {
                let job = self.clone();
                begun.spawn(async move {
                    job.unit(unit).await;
                    unit
                });
            }
            let unit = begun.join_next().await.unwrap().unwrap();
            done += 1;
            for next in &needed_by[unit] {
                left[*next] -= 1;
                if left[*next] == 0 {
                    ready.push(*next);
                }
            }
        }
    }
}

/// A question whose future ends with the connection.
struct Open<T>(Option<JoinHandle<T>>);

impl<T> Drop for Open<T> {
    fn drop(&mut self) {
        if let Some(question) = &self.0 {
            question.abort();
        }
    }
}

/// What came of a build by so many jobs.
#[derive(Debug)]
struct Outcome {
    /// Units that were stored, and how often in all.
    units: usize,
    compiled: u64,
    alone: u64,
    granted: u64,
    joined: u64,
    survivors: usize,
    figures: Figures,
}

/// Jobs that begin at any time; in trouble a quarter of them die, and a fifth is cut off.
async fn build(jobs: usize, trouble: bool) -> Outcome {
    let mut chance = Chance(7);
    let world = Arc::new(World {
        leases: leases(),
        graph: Graph::new(&mut chance),
        stored: Mutex::default(),
        granted: AtomicU64::new(0),
        alone: AtomicU64::new(0),
        joined: AtomicU64::new(0),
    });
    let (begun, mut running) = (Instant::now(), JoinSet::new());
    for n in 0..jobs {
        let mut within = |seconds: u64| Duration::from_millis(chance.below(seconds * 1000));
        let starts = begun + within(20);
        let (dies, cut, long) = (starts + within(40), starts + within(40), within(60));
        let is_cut = trouble && chance.below(5) == 0;
        let is_killed = trouble && chance.below(4) == 0;
        let job = Arc::new(Job {
            world: world.clone(),
            name: n.to_string(),
            cut_off: is_cut.then_some((cut, cut + long)),
            turns: Semaphore::new(TURNS),
        });
        running.spawn(async move {
            sleep_until(starts).await;
            if !is_killed {
                job.build().await;
                return true;
            }
            tokio::select! {
                biased;
                () = job.build() => true,
                () = sleep_until(dies) => false,
            }
        });
    }
    // Hours on a clock that stands while anything is to be done: none of them waits for ever.
    let ended = timeout(Duration::from_secs(4 * 3600), running.join_all()).await.unwrap();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let stored = world.stored.lock().unwrap();
    Outcome {
        units: stored.len(),
        compiled: stored.values().sum(),
        alone: read(&world.alone),
        granted: read(&world.granted),
        joined: read(&world.joined),
        survivors: ended.iter().filter(|survived| **survived).count(),
        figures: world.leases.figures(),
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_die_and_are_cut_off_lose_no_unit() {
    let outcome = build(JOBS, true).await;
    let Outcome { units, compiled, alone, survivors, figures, .. } = outcome;
    // Each job that survives has built all of it.
    assert_eq!(units, UNITS, "{outcome:?}");
    assert!(survivors < JOBS && figures.totals.lost > 0, "there was trouble: {outcome:?}");
    // What is compiled twice was compiled without the server, or by one that had lost its lease.
    assert!(compiled - UNITS as u64 <= alone, "{outcome:?}");
    assert!(compiled < 2 * UNITS as u64, "{outcome:?}");
    assert_eq!((figures.held, figures.waiting), (0, 0), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn without_trouble_each_unit_is_compiled_once() {
    let outcome = build(JOBS / 4, false).await;
    let Outcome { units, compiled, alone, granted, .. } = outcome;
    let all = UNITS as u64;
    assert_eq!((units, compiled, granted, alone), (UNITS, all, all, 0), "{outcome:?}");
    assert!(outcome.joined > all, "{outcome:?}");
    assert_eq!(outcome.figures.totals.lost, 0);
}
