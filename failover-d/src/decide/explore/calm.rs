//! When the disturbances stop, and a person lets go whom he fenced: a fair schedule without any, from any state, has to end with a primary that serves, if a
//! proof is possible at all; and with every instance back in its place.
//!
//! Whether a proof is possible is judged here by the disks, not by the decision.

use super::bounds::{Bounds, Mood, Sabotage};
use super::facts::Rule;
use super::heard::Controller;
use super::mind::Mind;
use super::server::{Duty, Place};
use super::sets::{Bits, each, has, one};
use super::world::World;

/// So many decisions lead to rest, or never will.
const ROUNDS: usize = 400;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Calm {
    /// A primary serves, and everybody follows.
    Well,
    /// Nobody may serve, or too few are left: a proof is not possible.
    Refused,
    /// It should have ended otherwise.
    Wrong(String),
}

/// Lets everything come to rest.
pub(super) fn calm(from: &World, bounds: &Bounds, mind: &Mind) -> Calm {
    let mut world = from.clone();
    let bounds = &Bounds {
        split: false,
        apply: false,
        commit: false,
        letters: 0,
        prompt: 1,
        slow: 0,
        writes: u8::MAX,
        sabotage: Sabotage::Nothing,
        ..bounds.clone()
    };
    world.letters.clear();
    world.apart = 0;
    world.hope.fenced = 0;
    world.controllers = vec![Controller::new(world.count(), None)];
    for server in 0..world.count() {
        if let Some(doing) = &mut world.servers[server as usize].doing {
            doing.by = 0;
        }
        world.see_through(server, bounds);
        if world.servers[server as usize].leaving {
            world.go(server, bounds);
        }
        if world.is_gone(server) && world.has_a_place(server) {
            world.back(server);
        }
    }
    let possible = proof_is_possible(&world);
    if let Err(why) = come_to_rest(&mut world, bounds, mind) {
        return Calm::Wrong(why);
    }
    let possible = possible && !too_few_are_left(&world);
    judge(&mut world, bounds, mind, possible)
}

/// Until nothing changes, however late it is.
fn come_to_rest(world: &mut World, bounds: &Bounds, mind: &Mind) -> Result<(), String> {
    let mut mood = Mood::Prompt;
    for _ in 0..ROUNDS {
        let before = world.clone();
        settle(world, bounds);
        decide(world, mood, bounds, mind);
        settle(world, bounds);
        if let Some(broken) = world.broken {
            return Err(format!("{broken:?} while it came to rest"));
        }
        mood = match (*world == before, mood) {
            (false, _) => Mood::Prompt,
            (true, Mood::Prompt | Mood::Wary) => Mood::Patient,
            (true, Mood::Patient) => Mood::Late,
            (true, Mood::Late) => return Ok(()),
        };
    }
    Err(format!("no rest after {ROUNDS} decisions: {:?}", world.facts))
}

/// Replication goes on, and topology-ctl does its part.
fn settle(world: &mut World, bounds: &Bounds) {
    loop {
        let before = world.clone();
        for server in 0..world.count() {
            world.receive(server, bounds);
            if world.can_apply(server) {
                world.apply(server);
            }
            world.commit_all(server);
            let wanted = server < world.hope.instances;
            if let Some(donor) = world.donor(server) {
                world.copy(server, donor);
            }
            if !wanted && !world.is_gone(server) && world.is_free(server) {
                world.go(server, bounds);
            }
        }
        if *world == before {
            return;
        }
    }
}

fn decide(world: &mut World, mood: Mood, bounds: &Bounds, mind: &Mind) {
    if mood == Mood::Late {
        world.controllers[0].undone = false;
    }
    if bounds.remember {
        world.remember(0);
    }
    let choice = mind.choose(world.view(0, mood, bounds));
    for &(to, command) in &choice.orders {
        world.give(0, to, command, bounds);
    }
    if let Some(next) = &choice.next {
        let step =
            super::steps::Step::Record { by: 0, next: Box::new(next.clone()), undone: choice.undone, wary: false };
        world.take(&step, bounds);
    }
}

/// Whether somebody holds, for each reign that counts, what enough of its ackers hold, or what its primary held.
fn proof_is_possible(world: &World) -> bool {
    let facts = &world.facts;
    let mut reigns = facts.unproven.clone();
    if let Some(primary) = facts.primary {
        reigns.push(Rule { primary, data: facts.data, ackers: facts.ackers, needed: facts.needed });
    }
    if let Some((to, intent)) = facts.candidate() {
        reigns.push(Rule { primary: to, data: intent.data, ackers: intent.ackers, needed: intent.needed });
    }
    let usable = |server: u8| {
        let this = &world.servers[server as usize];
        this.place != Place::Gone && this.data != 0 && !this.failed
    };
    each(world.everybody()).filter(|candidate| usable(*candidate)).any(|candidate| {
        let own = world.servers[candidate as usize].held();
        let contained = |server: u8| usable(server) && world.servers[server as usize].received() & !own == 0;
        reigns.iter().all(|reign| {
            let holders = each(reign.ackers).filter(|acker| contained(*acker)).count();
            let itself = contained(reign.primary) && world.servers[reign.primary as usize].data == reign.data;
            holders + usize::from(reign.needed) > reign.ackers.count_ones() as usize || itself
        })
    })
}

fn judge(world: &mut World, bounds: &Bounds, mind: &Mind, possible: bool) -> Calm {
    let blocked = mind.choose(world.view(0, Mood::Late, bounds)).blocked;
    let stuck = |what: String, world: &World| {
        Calm::Wrong(format!("{what}; blocked: {blocked:?}; {:?} {:?}", world.facts, world.hope))
    };
    let Some(primary) = world.facts.primary.filter(|_| world.facts.operation.is_none()) else {
        return if possible { stuck("no primary".to_owned(), world) } else { Calm::Refused };
    };
    let this = &world.servers[primary as usize];
    if !this.serves() || !this.in_force || this.data != world.facts.data {
        return if possible { stuck(format!("c-{primary} does not serve"), world) } else { Calm::Refused };
    }
    let lost = lost_for_good(world);
    let out = each(world.everybody()).find(|server| {
        let this = &world.servers[*server as usize];
        let follows = this.up()
            && this.in_force
            && !this.failed
            && matches!(this.duty, Duty::Replica { source, .. } if source == primary)
            && world.connected(*server) == Some(primary)
            && has(world.facts.ackers, *server);
        *server < world.hope.instances && *server != primary && !follows && !has(lost, *server)
    });
    if let Some(server) = out.filter(|_| lost == 0) {
        return stuck(format!("c-{server} does not follow: {:?}", world.servers[server as usize]), world);
    }
    let ready = each(world.facts.ackers).filter(|acker| world.connected(*acker) == Some(primary)).count();
    if ready < usize::from(this.needed) {
        let enough = lost == 0 || possible;
        return if enough { stuck("writes wait".to_owned(), world) } else { Calm::Refused };
    }
    if world.made.len() < 63 {
        world.write(primary, bounds);
        settle(world, bounds);
        if world.servers[primary as usize].tail != 0 {
            return stuck("a write waits for ever".to_owned(), world);
        }
    }
    Calm::Well
}

/// Ackers whose data is gone: while too few others are recorded they are not struck, and hold up what needs them
/// (docs/failover-protocol.md, "Not done yet").
fn lost_for_good(world: &World) -> Bits {
    let lost = |server: &u8| world.servers[*server as usize].is_lost();
    each(claimed(world).0).filter(lost).fold(0, |out, server| out | one(server))
}

/// The ackers that count now, and how many are needed.
fn claimed(world: &World) -> (Bits, u8) {
    let facts = &world.facts;
    facts.candidate().map_or((facts.ackers, facts.needed), |(_, intent)| (intent.ackers, intent.needed))
}

/// Whether a primary is open and fewer than have to acknowledge have data that they can follow with, recorded or not. (From one
/// that stays closed the others get new data, so that there are enough.)
fn too_few_are_left(world: &World) -> bool {
    let leads = world.facts.candidate().map_or(world.facts.primary, |(to, _)| Some(to));
    let able = |server: &u8| {
        let this = &world.servers[*server as usize];
        leads != Some(*server) && *server < world.hope.instances && !this.is_lost()
    };
    let open = leads.is_some_and(|leader| world.servers[leader as usize].opened);
    open && each(world.everybody()).filter(able).count() < usize::from(claimed(world).1)
}

mod tests {
    use super::super::super::{Kind, OperationPhase};
    use super::super::facts::Intent;
    use super::super::scenes::{reigns, written};
    use super::super::server::Server;
    use super::super::sets::Made;
    use super::*;

    /// c-0 died as the primary and was elected again, with a tail of its own; it opens when enough of `ackers` hold that. All
    /// others are lost: c-1 without data, the others with what was left behind.
    fn closed(instances: u8, ackers: Bits, needed: u8) -> (World, Bounds) {
        let bounds = Bounds { instances, ..Bounds::three() };
        let mut world = World::new(&bounds);
        reigns(&mut world, 0, 5, ackers, needed);
        let tail = written(&mut world);
        let epoch = 6;
        let left_behind = 1 << world.made.len();
        world.made.push(Made { uuid: 2, number: 1, acked: 0 });
        for index in 1..instances {
            let server = &mut world.servers[usize::from(index)];
            server.stop();
            let duty = Duty::Replica { source: 0, acknowledges: true };
            let held = server.executed | left_behind;
            *server = Server { failed: true, promised: epoch, duty, executed: held, ..server.clone() };
        }
        world.servers[1] = Server::empty();
        let primary = &mut world.servers[0];
        primary.stop();
        primary.tail = tail;
        primary.start();
        (primary.promised, primary.unproven) = (epoch, true);
        primary.duty = Duty::Primary { needed, struck: 0 };
        let data = primary.data;
        world.facts.operation = Some(Intent {
            kind: Kind::Failover,
            epoch,
            from: Some(0),
            to: Some(0),
            data,
            phase: OperationPhase::Promoting,
            ackers,
            needed,
        });
        (world, bounds)
    }

    #[test]
    fn a_candidate_that_stays_closed_gets_others_to_prove_what_it_holds() {
        for (instances, ackers, needed) in [(3, 0b100, 1), (3, 0b110, 1), (5, 0b11100, 2), (5, 0b11110, 2)] {
            let (world, bounds) = closed(instances, ackers, needed);
            let rest = calm(&world, &bounds, &Mind::new(&bounds));
            assert_eq!(rest, Calm::Well, "{instances} instances, ackers {ackers:b}");
        }
    }
}
