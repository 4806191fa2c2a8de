//! What disturbs the world, and how it comes back.

use super::bounds::Bounds;
use super::heard::Heard;
use super::server::{Place, Server};
use super::sets::{each, one};
use super::steps::Fault;
use super::world::World;

impl World {
    pub(super) fn suffer(&mut self, fault: Fault, bounds: &Bounds) {
        match fault {
            Fault::Crash { server } => {
                self.crash(server);
                self.forget(server, bounds.sabotage);
            }
            Fault::Vanish { server } => {
                self.crash(server);
                self.forget(server, bounds.sabotage);
                self.vanish(server);
            }
            Fault::Lose { server } => {
                self.crash(server);
                self.servers[server as usize] = Server::empty();
                // A new volume comes with a new pod at a new address: what was on its way to the old one is lost.
                self.letters.retain(|letter| letter.to != server);
                for controller in self.controllers.iter_mut().filter(|controller| !controller.is_slow()) {
                    controller.deaf &= !one(server);
                    controller.heard[server as usize] = Heard::Nothing;
                }
                self.apart &= !one(server);
            }
            Fault::Leave { server } => self.servers[server as usize].leaving = true,
            Fault::Isolate { server } => {
                self.apart |= one(server);
                for controller in 0..self.controllers.len() as u8 {
                    if !self.is_deaf(controller, server) {
                        self.deafen(controller, server);
                    }
                }
            }
            Fault::Deafen { controller, server } => self.deafen(controller, server),
            Fault::Switch { to } => self.hope.primary = to,
            Fault::Scale { instances } => self.hope.instances = instances,
            Fault::Fence { servers } => self.hope.fenced = servers,
        }
    }

    /// Its pod is gone, and everybody who looks sees that.
    fn vanish(&mut self, server: u8) {
        let this = &mut self.servers[server as usize];
        this.place = Place::Gone;
        this.leaving = false;
        for controller in self.controllers.iter_mut().filter(|controller| !controller.is_slow()) {
            controller.deaf &= !one(server);
            controller.heard[server as usize] = Heard::Nothing;
        }
    }

    /// A pod starts: mysqld does so by itself only after a clean stop.
    pub(super) fn back(&mut self, server: u8) {
        self.servers[server as usize].place = Place::Down;
        if self.servers[server as usize].clean {
            self.start(server);
        }
    }

    /// Leaves as instance-d does: cleanly when nobody waits any more, otherwise by SIGKILL.
    pub(super) fn go(&mut self, server: u8, bounds: &Bounds) {
        let this = &self.servers[server as usize];
        let clean = this.up() && (!this.opened || this.tail == 0);
        self.crash(server);
        self.forget(server, bounds.sabotage);
        let this = &mut self.servers[server as usize];
        this.clean = clean;
        self.vanish(server);
    }

    /// Everybody reaches everybody again.
    pub(super) fn heal(&mut self) {
        self.apart = 0;
        for controller in 0..self.controllers.len() as u8 {
            let this = &self.controllers[controller as usize];
            if !this.is_slow() {
                for server in each(this.deaf) {
                    self.hear(controller, server);
                }
            }
        }
    }
}
