//! Worlds that an exploration begins in, when the way there would be too long.

use super::facts::Facts;
use super::server::{Duty, Server};
use super::sets::{Bits, Epoch, Made, Set, has, one};
use super::world::World;

/// A write of c-0, of which nobody else knows yet.
pub(super) fn written(world: &mut World) -> Set {
    world.made.push(Made { uuid: 0, number: 1, acked: 0 });
    1
}

/// `primary` was promoted in `epoch`; all others that are up follow it, and `ackers` are recorded.
pub(super) fn reigns(world: &mut World, primary: u8, epoch: Epoch, ackers: Bits, needed: u8) {
    let everybody = world.everybody();
    for index in 0..world.count() {
        let server = &mut world.servers[index as usize];
        if !server.up() {
            continue;
        }
        server.promised = epoch;
        let acknowledges = has(ackers, index);
        let replica = Server {
            duty: Duty::Replica { source: primary, acknowledges },
            opened: false,
            needed: 0,
            source: Some(primary),
            receiving: true,
            applying: true,
            acknowledges,
            ..server.clone()
        };
        let struck = everybody & !ackers & !one(primary);
        let duty = Duty::Primary { needed, struck };
        let open =
            Server { duty, opened: true, needed, locked: struck, source: None, acknowledges: false, ..replica.clone() };
        *server = if index == primary { Server { receiving: false, applying: false, ..open } } else { replica };
    }
    let data = world.servers[primary as usize].data;
    world.facts = Facts { epoch, primary: Some(primary), data, ackers, needed, unproven: Vec::new(), operation: None };
    (world.newest_epoch, world.newest) = (epoch, Some(primary));
}
