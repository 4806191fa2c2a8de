//! The world as a model of stateright, and how its runs are printed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::bounds::{Bounds, Sabotage};
use super::calm::{Calm, calm};
use super::mind::Mind;
use super::rules::{ACKERS, ERRANT, FORWARD, KEPT, NEEDED, ONE, PROVEN, RECEIVED, RULES, check_step, holds};
use super::server::Place;
use super::steps::Step;
use super::world::World;

/// When the disturbances stop.
pub(super) const LIVELY: &str = "when nothing is disturbed any more, a primary serves and everybody follows";

const CHANGED: &str = "another primary serves";

pub(super) struct Small {
    bounds: Bounds,
    mind: Mind,
    begin: World,
    /// Every so many states it is tried whether all comes to rest. 0: never.
    calm_every: u64,
}

impl Model for Small {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.begin.clone()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        actions.extend(world.steps(&self.bounds, &self.mind));
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        world.take(&step, &self.bounds);
        if self.bounds.sabotage != Sabotage::PromiseForgotten {
            check_step(last, &mut world);
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let rule = |rule| match rule {
            KEPT => Property::<Self>::always(KEPT, |model: &Self, world: &World| model.keeps(KEPT, world)),
            ONE => Property::always(ONE, |model: &Self, world: &World| model.keeps(ONE, world)),
            FORWARD => Property::always(FORWARD, |model: &Self, world: &World| model.keeps(FORWARD, world)),
            PROVEN => Property::always(PROVEN, |model: &Self, world: &World| model.keeps(PROVEN, world)),
            RECEIVED => Property::always(RECEIVED, |model: &Self, world: &World| model.keeps(RECEIVED, world)),
            ERRANT => Property::always(ERRANT, |model: &Self, world: &World| model.keeps(ERRANT, world)),
            NEEDED => Property::always(NEEDED, |model: &Self, world: &World| model.keeps(NEEDED, world)),
            ACKERS => Property::always(ACKERS, |model: &Self, world: &World| model.keeps(ACKERS, world)),
            _ => unreachable!("{rule}"),
        };
        let mut all: Vec<_> = RULES.into_iter().map(rule).collect();
        if self.calm_every != 0 {
            all.push(Property::always(LIVELY, |model: &Self, world: &World| model.comes_to_rest(world).is_none()));
        }
        all.push(Property::sometimes(CHANGED, |_, world: &World| {
            let primary = world.facts.primary.filter(|_| world.facts.operation.is_none());
            primary.is_some_and(|primary| primary != 0 && world.servers[primary as usize].serves())
        }));
        all
    }

    fn within_boundary(&self, world: &World) -> bool {
        let claimed = world.facts.operation.as_ref().map_or(0, |intent| intent.epoch);
        world.facts.epoch.max(claimed) <= self.bounds.epochs
    }
}

impl Small {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { begin: World::new(&bounds), mind: Mind::new(&bounds), bounds, calm_every: 0 }
    }

    /// Begins somewhere else.
    pub(super) fn from(bounds: Bounds, begin: World) -> Self {
        Self { begin, ..Self::new(bounds) }
    }

    /// Also tries for every so many states whether all comes to rest.
    pub(super) fn lively(self, every: u64) -> Self {
        Self { calm_every: every, ..self }
    }

    fn keeps(&self, rule: &str, world: &World) -> bool {
        holds(rule, world, &self.bounds, &self.mind)
    }

    fn comes_to_rest(&self, world: &World) -> Option<String> {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        if !hasher.finish().is_multiple_of(self.calm_every) {
            return None;
        }
        match calm(world, &self.bounds, &self.mind) {
            Calm::Well | Calm::Refused => None,
            Calm::Wrong(why) => Some(why),
        }
    }

    /// Every state up to a depth. Panics with the shortest trace when a rule does not hold.
    pub(super) fn explore(self, depth: usize, what: &str) {
        let (checker, begun) = self.check(depth);
        println!("{what}: {}", counts(&checker, begun));
        if let Some((property, path)) = failure(&checker) {
            let model = checker.model();
            let why = if property == LIVELY { model.comes_to_rest(path.last_state()) } else { None };
            panic!("{what}: {property}: {}\n{}", why.unwrap_or_default(), trace(path.into_vec()));
        }
        if checker.model().bounds.faults > 0 {
            assert!(checker.discovery(CHANGED).is_some(), "{what}: {CHANGED} nowhere: the bounds are too small");
        }
    }

    /// A sabotage that breaks nothing shows that the rules are worth nothing. Without it nothing breaks so early.
    pub(super) fn shows(self, depth: usize) {
        let (bounds, begin) = (self.bounds.clone(), self.begin.clone());
        let sabotage = bounds.sabotage;
        let (checker, begun) = self.check(depth);
        let Some((property, path)) = failure(&checker) else {
            panic!("{sabotage:?} was not caught: {}", counts(&checker, begun));
        };
        let path = path.into_vec();
        let honest = Self::from(Bounds { sabotage: Sabotage::Nothing, ..bounds }, begin);
        let (without, _) = honest.check(path.len());
        assert!(failure(&without).is_none(), "the same without {sabotage:?}");
        println!("{sabotage:?} breaks \"{property}\": {}\n{}", counts(&checker, begun), trace(path));
    }

    /// One thread: only then the first way to a state is the shortest, and nothing within the depth is left out.
    fn check(self, depth: usize) -> (impl Checker<Self>, Instant) {
        let begun = Instant::now();
        let checker =
            self.checker().target_max_depth(depth).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        (checker, begun)
    }
}

fn failure(checker: &impl Checker<Small>) -> Option<(&'static str, stateright::Path<World, Step>)> {
    let rules = RULES.into_iter().chain([LIVELY].into_iter().filter(|_| checker.model().calm_every != 0));
    rules.into_iter().find_map(|rule| Some((rule, checker.discovery(rule)?)))
}

fn counts(checker: &impl Checker<Small>, begun: Instant) -> String {
    format!(
        "{} states, {} of them unique, depth {}, {} decisions asked for, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        checker.model().mind.asked(),
        begun.elapsed().as_secs_f64()
    )
}

/// A way through the world, for people.
pub(super) fn trace(path: impl IntoIterator<Item = (World, Option<Step>)>) -> String {
    let mut out = String::new();
    let mut before: Option<World> = None;
    for (world, step) in path {
        show(&mut out, before.as_ref(), &world);
        if let Some(step) = step {
            writeln!(out, "  -> {}", short(&step)).expect("a String takes everything");
        }
        before = Some(world);
    }
    out
}

fn short(step: &Step) -> String {
    match step {
        Step::Record { by, next, wary, .. } => {
            let wary = if *wary { " (the primary does not answer it)" } else { "" };
            format!("controller {by} records{wary} {}", record(next))
        }
        Step::Give { by, to, command } => format!("controller {by} to c-{to}: {command:?}"),
        Step::Post { by, to, command } => format!("controller {by} to c-{to}, on its way: {command:?}"),
        other => format!("{other:?}"),
    }
}

fn record(facts: &super::facts::Facts) -> String {
    let names = |bits| super::sets::each(bits).map(|server| server.to_string()).collect::<String>();
    let unproven: Vec<String> = facts
        .unproven
        .iter()
        .map(|rule| format!("c-{} of data {} A={} W={}", rule.primary, rule.data, names(rule.ackers), rule.needed))
        .collect();
    let operation = facts.operation.as_ref().map_or_else(String::new, |it| {
        format!(
            ", {:?} {:?} epoch {} from {:?} to {:?} A={} W={}",
            it.kind,
            it.phase,
            it.epoch,
            it.from,
            it.to,
            names(it.ackers),
            it.needed
        )
    });
    format!(
        "epoch {} primary {:?} of data {} A={} W={} unproven {unproven:?}{operation}",
        facts.epoch,
        facts.primary,
        facts.data,
        names(facts.ackers),
        facts.needed
    )
}

/// Only what has changed.
fn show(out: &mut String, before: Option<&World>, world: &World) {
    for (index, server) in world.servers.iter().enumerate() {
        if before.is_some_and(|before| before.servers[index] == *server) {
            continue;
        }
        let flags = [
            (server.opened, "open"),
            (server.in_force, "in-force"),
            (server.unproven, "tail-unproven"),
            (server.failed, "failed"),
            (server.leaving, "leaving"),
            (server.offline && server.place == Place::Up, "offline"),
            (server.receiving, "receiving"),
            (server.applying, "applying"),
            (server.acknowledges, "acknowledging"),
        ];
        let flags: BTreeSet<&str> = flags.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        let flags = flags.into_iter().collect::<Vec<_>>().join(" ");
        writeln!(
            out,
            "     c-{index}: {:?} data {} uuid {} promised {} {:?} executed {:b} relay {:b} tail {:b} locked {:b} W={} source {:?} {flags} {:?}",
            server.place,
            server.data,
            server.uuid,
            server.promised,
            server.duty,
            server.executed,
            server.relay,
            server.tail,
            server.locked,
            server.needed,
            server.source,
            server.doing.map(|doing| (doing.command, doing.at)),
        )
        .expect("a String takes everything");
    }
    if before.is_none_or(|before| before.facts != world.facts) {
        writeln!(out, "     record: {}", record(&world.facts)).expect("a String takes everything");
    }
    if before.is_none_or(|before| before.told != world.told || before.broken != world.broken) {
        writeln!(out, "     clients were told {:b}; broken: {:?}", world.told, world.broken)
            .expect("a String takes everything");
    }
}
