//! The invariants of docs/architecture.md, as far as they can be said here.

use super::bounds::{Bounds, Mood};
use super::mind::Mind;
use super::server::Duty;
use super::sets::{Bits, Set, each, has, one};
use super::world::{Broken, World};

/// Invariant 1: whoever is the primary now holds what clients were told.
pub(super) const KEPT: &str =
    "1: the newest primary holds what clients were told is committed, and what they could read";
/// Invariant 2.
pub(super) const ONE: &str =
    "2: nobody commits once another has opened in a newer epoch, and nobody opens beside another";
/// Invariant 3.
pub(super) const FORWARD: &str = "3: recorded epochs and promises only grow";
/// Invariant 4.
pub(super) const PROVEN: &str = "4: a candidate that is recorded holds what clients were told";
/// Invariant 5.
pub(super) const RECEIVED: &str = "5: what was received, or told to clients, is never thrown away";
/// Invariant 6.
pub(super) const ERRANT: &str = "6: what the primary lacks is not served, and no GTID has two meanings";
/// Why the proofs hold: `W` is true.
pub(super) const NEEDED: &str = "the record never claims more acknowledgements than the primary waits for";
/// Why the proofs hold: `A` is true.
pub(super) const ACKERS: &str = "whoever can acknowledge is recorded";

/// All of them.
pub(super) const RULES: [&str; 8] = [KEPT, ONE, FORWARD, PROVEN, RECEIVED, ERRANT, NEEDED, ACKERS];

/// Whether a rule holds in a state.
pub(super) fn holds(rule: &str, world: &World, bounds: &Bounds, mind: &Mind) -> bool {
    match rule {
        KEPT => world.newest.is_none_or(|newest| {
            let this = &world.servers[newest as usize];
            !this.opened || world.told & !this.executed == 0
        }),
        ONE => !matches!(world.broken, Some(Broken::Split | Broken::Twice)),
        FORWARD => world.broken != Some(Broken::Backwards),
        PROVEN => world.broken != Some(Broken::Unproven),
        RECEIVED => !matches!(world.broken, Some(Broken::Dropped | Broken::Cut)),
        ERRANT => world.broken != Some(Broken::Reused) && !follows_errant(world) && !serves_errant(world, bounds, mind),
        NEEDED => claim(world).is_none_or(|(primary, claim)| claim.needed <= world.servers[primary as usize].needed),
        ACKERS => claim(world).is_none_or(|(primary, claim)| can_acknowledge(world, primary) & !claim.ackers == 0),
        _ => unreachable!("{rule}"),
    }
}

/// The first rule that does not hold.
pub(super) fn violated(world: &World, bounds: &Bounds, mind: &Mind) -> Option<&'static str> {
    RULES.into_iter().find(|rule| !holds(rule, world, bounds, mind))
}

struct Claim {
    ackers: Bits,
    needed: u8,
}

/// What is recorded of a primary that is open: as the candidate of the operation that opened it, or as the primary.
fn claim(world: &World) -> Option<(u8, Claim)> {
    if let Some((to, intent)) = world.facts.candidate() {
        let this = &world.servers[to as usize];
        if this.opened && this.promised == intent.epoch {
            return Some((to, Claim { ackers: intent.ackers, needed: intent.needed }));
        }
    }
    let primary = world.facts.primary?;
    let this = &world.servers[primary as usize];
    let reigns = this.opened && this.data == world.facts.data;
    // It may have opened again in an operation that another took the place of: that is an unproven reign then, and no proof does
    // without it.
    let again = world.facts.unproven.iter().filter(|reign| reign.primary == primary && reign.data == this.data);
    let needed = again.map(|reign| reign.needed).fold(world.facts.needed, u8::min);
    reigns.then_some((primary, Claim { ackers: world.facts.ackers, needed }))
}

/// Whose acknowledgements would be counted now, whatever the network does.
fn can_acknowledge(world: &World, primary: u8) -> Bits {
    let locked = world.servers[primary as usize].locked;
    let can = |server: &u8| {
        let this = &world.servers[*server as usize];
        this.up() && this.receiving && this.acknowledges && this.source == Some(primary) && !has(locked, *server)
    };
    each(world.everybody()).filter(can).fold(0, |out, server| out | one(server))
}

/// What an instance holds that the newest primary does not, when that is open.
fn foreign(world: &World, primary: u8, server: u8) -> Set {
    world.servers[server as usize].received() & !world.servers[primary as usize].held()
}

/// An instance is in force as a replica of the newest primary, in its epoch, and holds what that lacks.
fn follows_errant(world: &World) -> bool {
    let Some(primary) = world.newest.filter(|newest| world.servers[*newest as usize].opened) else { return false };
    world.servers.iter().enumerate().any(|(server, this)| {
        let told = matches!(this.duty, Duty::Replica { source, .. } if source == primary);
        let done = this.up() && this.in_force && this.doing.is_none() && this.promised >= world.newest_epoch;
        told && done && foreign(world, primary, server as u8) != 0
    })
}

/// A controller that sees what is there sends reads to an instance that holds what the primary lacks.
fn serves_errant(world: &World, bounds: &Bounds, mind: &Mind) -> bool {
    let Some(primary) = world.newest.filter(|newest| world.servers[*newest as usize].serves()) else { return false };
    let suspects = each(world.everybody()).filter(|server| {
        world.servers[*server as usize].up() && *server != primary && foreign(world, primary, *server) != 0
    });
    let suspects = suspects.fold(0, |out, server| out | one(server));
    if suspects == 0 || world.facts.operation.is_some() || world.facts.primary != Some(primary) {
        return false;
    }
    (0..bounds.prompt).any(|controller| {
        let deaf = world.controllers[controller as usize].deaf;
        let choice = mind.choose(world.view(controller, Mood::Prompt, bounds));
        choice.reads.is_some_and(|(at, reads)| at == primary && reads & suspects & !deaf != 0 && !has(deaf, primary))
    })
}

/// What a step may not do, whatever it is.
pub(super) fn check_step(before: &World, after: &mut World) {
    for (old, new) in before.servers.iter().zip(&after.servers) {
        if old.data != new.data || new.data == 0 {
            continue;
        }
        if new.promised < old.promised {
            after.broken = Some(Broken::Backwards);
        } else if old.received() & !new.received() != 0 {
            after.broken = Some(Broken::Dropped);
        }
        if after.broken.is_some() {
            return;
        }
    }
}
