//! Properties of plans.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn digest(i: u8) -> Digest {
    Digest::of(&[i])
}

/// A result of a scope, stored and used so many hours ago.
fn kept(id: u8, scope: u8, hours: (u64, u64), blobs: &[u8]) -> KeptResult {
    KeptResult {
        object: format!("results/x/{scope}/00/u/{id:03}").parse().unwrap(),
        scope_id: format!("scope{scope}"),
        unit: UnitKey::new(digest(id)),
        result: ResultKey::new(digest(id)),
        generation: 0,
        bytes: 100,
        stored_ms: NOW - hours.0 * HOUR,
        used_ms: NOW - hours.1 * HOUR,
        content: ResultContent::Read {
            unit_name: format!("crate{id}"),
            cost_ms: 1000,
            blobs: blobs.iter().map(|i| digest(*i)).collect(),
        },
        pinned: false,
    }
}

fn blob(i: u8, bytes: u64, hours: u64) -> KeptBlob {
    KeptBlob {
        object: format!("packed/00/{i:03}").parse().unwrap(),
        digest: digest(i),
        bytes,
        stored_ms: NOW - hours * HOUR,
    }
}

fn policy(quota: u64) -> Policy {
    Policy { max_unused: Duration::from_millis(10 * DAY), ..Policy::new(quota) }
}

fn inventories() -> impl Strategy<Value = Inventory> {
    let hours = 0_u64..400;
    let named = proptest::collection::vec(0_u8..14, 0..4);
    let result = (0_u8..3, (hours.clone(), hours.clone()), named, 0_u8..20, 0_u32..2, 0_u64..5000);
    let blob = (0_u64..1000, hours);
    (proptest::collection::vec(result, 0..20), proptest::collection::vec(blob, 10..12)).prop_map(
        |(results, blobs)| Inventory {
            results: results
                .into_iter()
                .enumerate()
                .map(|(i, (scope, hours, named, kind, generation, cost))| {
                    let mut result = kept(i as u8, scope, hours, &named);
                    // Some are of one name, in two generations.
                    result.result = ResultKey::new(digest(i as u8 / 2));
                    result.generation = generation;
                    result.pinned = kind == 0;
                    match kind {
                        1 => result.content = ResultContent::Damaged,
                        2 => result.content = ResultContent::Foreign,
                        _ => {
                            if let ResultContent::Read { cost_ms, .. } = &mut result.content {
                                *cost_ms = cost;
                            }
                        }
                    }
                    result
                })
                .collect(),
            blobs: (0..)
                .zip(blobs)
                .map(|(i, (bytes, hours))| self::blob(i, bytes, hours))
                .collect(),
            ..Inventory::default()
        },
    )
}

fn after(inventory: &Inventory, plan: &Plan) -> Inventory {
    let mut left = inventory.clone();
    left.results.retain(|result| !plan.results.iter().any(|(object, _)| *object == result.object));
    left.blobs.retain(|blob| !plan.blobs.iter().any(|(object, _)| *object == blob.object));
    left
}

fn is_kept(result: &KeptResult) -> bool {
    result.pinned || NOW - result.stored_ms < HOUR
}

proptest! {
    #[test]
    fn what_stays_is_whole_and_what_is_kept_stays(inventory in inventories(), quota in 0_u64..5000) {
        let policy = policy(quota);
        let plan = plan(&inventory, &policy, NOW);
        let left = after(&inventory, &plan);
        for result in &left.results {
            for digest in known(result).1 {
                let was = inventory.blobs.iter().any(|blob| blob.digest == *digest);
                let is = left.blobs.iter().any(|blob| blob.digest == *digest);
                prop_assert_eq!(was, is, "a result that stays lost a blob");
                prop_assert!(was || is_kept(result), "a broken result stays");
            }
        }
        for result in inventory.results.iter().filter(|result| is_kept(result)) {
            prop_assert!(left.results.contains(result));
        }
        let young = inventory.blobs.iter().filter(|blob| NOW - blob.stored_ms < HOUR);
        young.for_each(|blob| assert!(left.blobs.contains(blob)));
    }

    #[test]
    fn quotas_hold_and_nothing_unused_stays(inventory in inventories(), quota in 0_u64..5000) {
        let policy = policy(quota);
        let plan = plan(&inventory, &policy, NOW);
        let left = after(&inventory, &plan);
        for (scope, account) in &plan.scopes {
            let of_scope = left.results.iter().filter(|result| result.scope_id == *scope);
            prop_assert!(account.bytes_after <= quota || of_scope.clone().all(is_kept));
            prop_assert_eq!(account.results - account.results_gone, of_scope.count() as u64);
        }
        for result in left.results.iter().filter(|result| !is_kept(result)) {
            prop_assert!(NOW - result.used_ms.max(result.stored_ms) < 10 * DAY);
            prop_assert!(result.content != ResultContent::Damaged);
        }
        let named: HashSet<Digest> = left.results.iter().flat_map(known_blobs).collect();
        let foreign = left.results.iter().any(|r| r.content == ResultContent::Foreign);
        let least = if foreign { 10 * DAY } else { HOUR };
        for blob in &left.blobs {
            prop_assert!(named.contains(&blob.digest) || NOW - blob.stored_ms < least);
        }
    }

    #[test]
    fn the_order_does_not_matter_and_a_second_plan_finds_nothing(
        (inventory, shuffled) in inventories().prop_flat_map(|inventory| {
            let results = Just(inventory.results.clone()).prop_shuffle();
            let blobs = Just(inventory.blobs.clone()).prop_shuffle();
            let shuffled = (results, blobs)
                .prop_map(|(results, blobs)| Inventory { results, blobs, ..Inventory::default() });
            (Just(inventory), shuffled)
        }),
        quota in 0_u64..5000,
    ) {
        let policy = policy(quota);
        let first = plan(&inventory, &policy, NOW);
        prop_assert_eq!(&first, &plan(&shuffled, &policy, NOW));
        let bytes = |inventory: &Inventory| {
            inventory.results.iter().map(|r| r.bytes).chain(inventory.blobs.iter().map(|b| b.bytes)).sum::<u64>()
        };
        let left = after(&inventory, &first);
        prop_assert_eq!(first.bytes, bytes(&inventory) - bytes(&left));
        let second = plan(&left, &policy, NOW);
        prop_assert_eq!((second.results, second.blobs), (vec![], vec![]));
    }
}

fn known_blobs(result: &KeptResult) -> Vec<Digest> {
    known(result).1.to_vec()
}

fn gone(inventory: &Inventory, policy: &Policy) -> Vec<Why> {
    plan(inventory, policy, NOW).results.into_iter().map(|(_, why)| why).collect()
}

#[test]
fn last_use_counts_and_not_the_time_of_writing() {
    let old =
        |used| Inventory { results: vec![kept(0, 0, (2000, used), &[])], ..Inventory::default() };
    assert_eq!(gone(&old(2000), &policy(u64::MAX)), [Why::Unused]);
    assert_eq!(gone(&old(239), &policy(u64::MAX)), []);
    assert_eq!(gone(&old(240), &policy(u64::MAX)), [Why::Unused]);
    let mut pinned = old(2000);
    pinned.results[0].pinned = true;
    assert_eq!(gone(&pinned, &policy(0)), []);
}

#[test]
fn of_a_scope_over_its_quota_the_least_used_goes_and_no_other_scope_pays() {
    let inventory = Inventory {
        results: vec![
            kept(0, 0, (100, 90), &[0]),
            kept(1, 0, (100, 2), &[1]),
            kept(2, 1, (100, 95), &[0, 2]),
        ],
        blobs: vec![blob(0, 1000, 100), blob(1, 1000, 100), blob(2, 1000, 100)],
        ..Inventory::default()
    };
    let mut policy = policy(2100);
    let plan = plan(&inventory, &policy, NOW);
    let expected = vec![(inventory.results[0].object.clone(), Why::Quota)];
    assert_eq!(plan.results, expected);
    assert_eq!(plan.blobs, [], "the other scope needs the blob");
    let account = plan.scopes["scope0"];
    assert_eq!((account.bytes_before, account.bytes_after, account.rebuild_ms), (2200, 1100, 1000));
    assert_eq!(plan.dearest, [("crate0".to_owned(), 1000)]);
    let text = plan.describe();
    assert!(
        text.starts_with("1 results and 0 blobs go, 0.0 MiB; making them anew would take 1.0 s\n")
    );
    assert!(text.contains("  over quota: 1\n") && text.contains("  crate0: 1.0 s\n"), "{text}");
    policy.quotas.insert("scope0".to_owned(), 10_000);
    assert_eq!(gone(&inventory, &policy), []);
}

#[test]
fn old_generations_damage_and_missing_blobs_go() {
    let mut older = kept(0, 0, (100, 1), &[]);
    let newer =
        KeptResult { object: "results/newer".parse().unwrap(), generation: 1, ..older.clone() };
    older.used_ms = NOW;
    let mut damaged = kept(1, 0, (100, 1), &[]);
    damaged.content = ResultContent::Damaged;
    let missing = kept(2, 0, (100, 1), &[9]);
    let young = KeptResult { stored_ms: NOW, ..kept(3, 0, (0, 0), &[9]) };
    let inventory =
        Inventory { results: vec![older, newer, damaged, missing, young], ..Inventory::default() };
    assert_eq!(gone(&inventory, &policy(u64::MAX)), [Why::Replaced, Why::Broken, Why::Broken]);
}

/// A damaged newer generation does not take the place of a good one.
#[test]
fn a_damaged_generation_replaces_nothing() {
    let good = kept(0, 0, (100, 1), &[]);
    let damaged = KeptResult {
        object: "results/newer".parse().unwrap(),
        generation: 1,
        content: ResultContent::Damaged,
        ..good.clone()
    };
    let inventory = Inventory { results: vec![good, damaged], ..Inventory::default() };
    assert_eq!(gone(&inventory, &policy(u64::MAX)), [Why::Broken]);
}

#[test]
fn old_pages_and_announcements_go_and_others_stay() {
    let day = NOW / DAY;
    let page = |name: &str, day| (name.parse::<ObjectName>().unwrap(), day);
    let inventory = Inventory {
        used_pages: vec![page("used/old", day - 12), page("used/new", day - 9)],
        announcements: vec![page("collecting/old", NOW - 2 * HOUR), page("collecting/new", NOW)],
        ..Inventory::default()
    };
    let others = plan(&inventory, &policy(0), NOW).others;
    let names: Vec<_> = others.iter().map(ObjectName::as_str).collect();
    assert_eq!(names, ["collecting/old", "used/old"]);
}

/// Packs only save requests: they go before anything else has to, and never anything for them.
#[test]
fn events_of_old_runs_go() {
    let batch = |hours: u64| (format!("events/{hours}").parse().unwrap(), NOW - hours * HOUR);
    let events = vec![batch(1), batch(9 * 24), batch(10 * 24 + 1)];
    let inventory = Inventory { events, ..Inventory::default() };
    let plan = plan(&inventory, &policy(1000), NOW);
    assert_eq!(plan.others, ["events/241".parse().unwrap()]);
}

#[test]
fn packs_have_what_room_is_left() {
    let pack = |i: u8, hours: u64| KeptPack {
        object: format!("together/scope0/note/{i:03}").parse().unwrap(),
        scope_id: "scope0".into(),
        bytes: 1000,
        stored_ms: NOW - hours * HOUR,
    };
    let rejection =
        |hours: u64| (format!("rejected/scope0/{hours}").parse().unwrap(), NOW - hours * HOUR);
    let inventory = Inventory {
        results: vec![kept(0, 0, (20, 20), &[1])],
        blobs: vec![blob(1, 900, 20)],
        packs: vec![pack(1, 2), pack(2, 3), pack(3, 4), pack(4, 10 * 24), pack(5, 0)],
        rejections: vec![rejection(11 * 24), rejection(20 * 24 + 1)],
        ..Inventory::default()
    };
    let gone = |quota: u64| -> Vec<String> {
        let plan = plan(&inventory, &policy(quota), NOW);
        assert!(plan.results.is_empty() && plan.blobs.is_empty(), "{plan:?}");
        let packs = plan.others.iter().filter(|name| name.as_str().starts_with("together"));
        assert_eq!(plan.bytes, 1000 * packs.count() as u64);
        plan.others.iter().map(|name| name.as_str().to_owned()).collect()
    };
    let (old, forgotten) = ("together/scope0/note/004", "rejected/scope0/481");
    assert_eq!(gone(u64::MAX), [forgotten, old]);
    assert_eq!(
        gone(3000),
        [forgotten, "together/scope0/note/002", "together/scope0/note/003", old]
    );
    // Young ones stay.
    let all = ["001", "002", "003", "004"].map(|i| format!("together/scope0/note/{i}"));
    assert_eq!(gone(1100), [vec![forgotten.to_owned()], all.to_vec()].concat());
}
