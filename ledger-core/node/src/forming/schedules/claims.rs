//! What holds in every schedule.

use std::collections::BTreeSet;

use super::super::events::Goal;
use super::world::{Chance, Counts, Mistake, Setting, TIMEOUT_MS, World};

/// Steps of the storm and of the calm after it.
const STORM_STEPS: usize = 1_500;
const CALM_STEPS: usize = 12_000;

/// How nodes know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    /// Every node lists all.
    All,
    /// Every node lists the first one.
    Star,
    /// Every node lists the next one, the last one nobody.
    Chain,
    /// Anything, and something else after each restart.
    Changing,
}

#[derive(Debug, Clone, Copy)]
struct Scenario {
    lists: Lists,
    nodes: usize,
    /// What each of them expects.
    expected: u32,
    /// Nodes after them that want to join.
    joiners: usize,
    /// One node expects one more.
    disagree: bool,
    /// Directories may be lost.
    wipes: bool,
}

const PLAIN: Scenario =
    Scenario { lists: Lists::All, nodes: 3, expected: 3, joiners: 0, disagree: false, wipes: false };

impl Scenario {
    fn list(&self, slot: usize, chance: &mut Chance) -> BTreeSet<usize> {
        let all = self.nodes + self.joiners;
        match self.lists {
            Lists::All => (0..all).collect(),
            Lists::Star => BTreeSet::from([0]),
            Lists::Chain => (slot + 1..all.min(slot + 2)).collect(),
            Lists::Changing => (0..all).filter(|_| chance.one_in(2)).collect(),
        }
    }

    fn settings(&self, chance: &mut Chance) -> Vec<Setting> {
        (0..self.nodes + self.joiners)
            .map(|slot| {
                let goal = match slot {
                    slot if slot >= self.nodes => Goal::Join,
                    0 if self.disagree => Goal::Form { nodes: self.expected + 1 },
                    _ => Goal::Form { nodes: self.expected },
                };
                // Joiners are found, they are not waited for.
                let mut list = self.list(slot, chance);
                if self.lists == Lists::All && slot < self.nodes {
                    list.retain(|peer| *peer < self.nodes);
                }
                Setting { goal, list }
            })
            .collect()
    }

    /// Whether every two nodes are linked, so that there must never be two clusters at all.
    fn is_linked(&self) -> bool {
        self.lists != Lists::Changing
    }
}

/// Runs one schedule; an error says what was violated.
fn run(seed: u64, scenario: Scenario, mistake: Mistake) -> Result<Counts, String> {
    let mut chance = Chance::new(seed ^ 0x5eed);
    let mut world = World::new(seed, mistake, scenario.settings(&mut chance));
    let count = world.nodes.len();
    let check = |world: &World| {
        world.check()?;
        let clusters = world.clusters();
        match scenario.is_linked() && clusters.len() > 1 {
            true => Err(format!("two clusters: {clusters:?}")),
            false => Ok(()),
        }
    };
    for _ in 0..STORM_STEPS {
        if chance.one_in(150) {
            world.cut_randomly();
        }
        let slot = chance.below(count);
        if world.is_down(slot) {
            if chance.one_in(20) {
                if scenario.lists == Lists::Changing {
                    world.nodes[slot].setting.list = scenario.list(slot, &mut chance);
                }
                world.start(slot);
            }
        } else if chance.one_in(400) {
            world.crash(slot);
        } else if scenario.wipes && chance.one_in(1_500) {
            world.wipe(slot);
        }
        world.step();
        check(&world)?;
    }
    calm_down(&mut world, scenario, &check)?;
    Ok(world.counts)
}

/// Everything is started again and nothing goes wrong: the nodes end up in one cluster, or say why not.
fn calm_down(
    world: &mut World,
    scenario: Scenario,
    check: &impl Fn(&World) -> Result<(), String>,
) -> Result<(), String> {
    world.calm();
    let count = world.nodes.len();
    for slot in 0..count {
        if world.is_down(slot) {
            world.start(slot);
        }
    }
    for _ in 0..CALM_STEPS {
        world.step();
        check(world)?;
        if (0..count).all(|slot| world.is_member(slot)) {
            return Ok(());
        }
        // Those whose time was up are started again together, as a supervisor would.
        if (0..count).all(|slot| world.is_down(slot) || world.is_member(slot)) {
            (0..count).for_each(|slot| {
                if world.is_down(slot) {
                    world.start(slot);
                }
            });
        }
    }
    world.counts.stuck += 1;
    let must_form = scenario.lists != Lists::Changing
        && scenario.nodes == scenario.expected as usize
        && !scenario.disagree
        && !scenario.wipes
        // A node that is listed and does not answer keeps the others waiting, also one that only wants to join.
        && scenario.joiners == 0;
    match must_form {
        true => {
            let state: Vec<_> = world.nodes.iter().map(|node| &node.disk).collect();
            Err(format!("no cluster within {TIMEOUT_MS} ms of calm, {:?}: {state:#?}", world.counts))
        }
        false => Ok(()),
    }
}

fn run_all(scenario: Scenario, seeds: u64) -> Counts {
    let mut counts = Counts::default();
    for seed in 0..seeds {
        match run(seed, scenario, Mistake::None) {
            Ok(run) => counts.add(&run),
            Err(violation) => panic!("seed {seed} of {scenario:?}: {violation}"),
        }
    }
    counts
}

/// How many schedules show that a mistake was made.
fn caught(scenario: Scenario, seeds: u64, mistake: Mistake) -> usize {
    (0..seeds).filter(|seed| run(*seed, scenario, mistake).is_err()).count()
}

#[test]
fn three_nodes_that_list_each_other_form_one_cluster_whatever_happens() {
    let counts = run_all(PLAIN, 150);
    assert_eq!(counts.stuck, 0);
    for rare in [
        counts.founded,
        counts.settled,
        counts.released,
        counts.timed_out,
        counts.crashes,
        counts.crashes_between,
        counts.lost,
        counts.repeated,
    ] {
        assert!(rare > 20, "it did not happen: {counts:?}");
    }
    assert!(counts.founded >= 150);
}

#[test]
fn two_five_and_seven_nodes_form_one_cluster() {
    for (nodes, seeds) in [(2, 80), (5, 40), (7, 15)] {
        let counts = run_all(Scenario { nodes, expected: nodes as u32, ..PLAIN }, seeds);
        assert_eq!(counts.founded, seeds, "{counts:?}");
    }
}

#[test]
fn nodes_that_know_of_each_other_only_through_one_or_in_a_row_form_one_cluster() {
    for lists in [Lists::Star, Lists::Chain] {
        let counts = run_all(Scenario { lists, nodes: 4, expected: 4, ..PLAIN }, 60);
        assert_eq!(counts.founded, 60, "{lists:?}: {counts:?}");
    }
}

#[test]
fn more_nodes_than_expected_never_form_two_clusters() {
    let mut founded = 0;
    for lists in [Lists::All, Lists::Star, Lists::Chain] {
        for (nodes, expected) in [(4, 2), (6, 3), (4, 3)] {
            let counts = run_all(Scenario { lists, nodes, expected, ..PLAIN }, 25);
            assert!(counts.timed_out > 0, "nobody said so: {counts:?}");
            founded += counts.founded;
        }
    }
    // With a list that is shorter than the nodes, those that are there first may form the cluster.
    assert!(founded > 0);
}

#[test]
fn a_node_that_expects_another_number_never_leads_to_two_clusters() {
    let counts = run_all(Scenario { disagree: true, ..PLAIN }, 40);
    assert_eq!(counts.founded, 0);
    assert!(counts.timed_out > 40, "{counts:?}");
}

#[test]
fn nodes_that_join_are_taken_in_by_the_cluster_that_is_formed_meanwhile() {
    let counts = run_all(Scenario { joiners: 2, ..PLAIN }, 60);
    assert!(counts.founded >= 30, "{counts:?}");
    assert!(counts.joined >= counts.founded * 3 / 2, "{counts:?}");
}

#[test]
fn wiped_directories_never_lead_to_two_clusters() {
    let counts = run_all(Scenario { wipes: true, ..PLAIN }, 150);
    assert!(counts.wiped > 50 && counts.joined > 5, "{counts:?}");
}

#[test]
fn clusters_that_were_founded_share_no_node_even_when_lists_change_with_every_start() {
    let scenario = Scenario { lists: Lists::Changing, nodes: 3, expected: 2, ..PLAIN };
    let counts = run_all(scenario, 60);
    assert!(counts.founded > 20 && counts.released > 10, "{counts:?}");
    run_all(Scenario { nodes: 5, ..scenario }, 30);
    run_all(Scenario { nodes: 6, expected: 3, wipes: true, ..scenario }, 60);
}

#[test]
fn every_mistake_made_on_purpose_is_caught() {
    let in_a_row = Scenario { lists: Lists::Chain, ..PLAIN };
    assert!(caught(in_a_row, 150, Mistake::PromiseForgotten) > 0);
    let longer = Scenario { nodes: 4, expected: 2, ..in_a_row };
    assert!(caught(longer, 60, Mistake::SilentIgnored) > 0);
}
