//! What every core of a node knows and none changes.

use std::sync::Arc;

use shards::Store;
use shards::io::LaneId;

use crate::link::ServerLinkConfig;
use crate::relay::{Rate, RelayLimits, Window};
use crate::rt::api::CoreId;
use crate::wire::{Address, NodeId};

/// Deadlines of connections, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From accept to the end of the TLS handshake.
    pub tls_us: u64,
    /// From there to a valid login.
    pub login_us: u64,
    /// A connection that takes not one byte for this long, while bytes wait, is closed.
    pub stall_us: u64,
    /// A connection that says nothing for this long is closed.
    pub idle_us: u64,
}

/// Bounds on the connections of one core.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Connections.
    pub connections: u32,
    /// Connections that are not logged in yet.
    pub opening: u32,
    /// Connections per source prefix (an IPv4 /24 or an IPv6 /56).
    pub per_prefix: u32,
    /// New connections per second and source prefix, and how many may come at once.
    pub prefix_rate: Rate,
    /// Sends without a receipt per session.
    pub send_window: u32,
    /// Largest window a device may ask for.
    pub window: Window,
}

/// What every core of a node knows.
pub struct Shared {
    /// This node.
    pub node_id: NodeId,
    /// Its side of TLS.
    pub link: Arc<ServerLinkConfig>,
    /// Where keys live.
    pub store: Store,
    /// Core of each lane.
    pub core_of_lane: Vec<CoreId>,
    /// Bounds of each core's relay.
    pub relay: RelayLimits,
    /// Bounds of each core's connections.
    pub sessions: SessionLimits,
    /// Deadlines of connections.
    pub deadlines: Deadlines,
}

impl Shared {
    /// The core that is home to an address: owns its mailbox and its devices' sessions.
    pub fn home_of(&self, address: &Address) -> CoreId {
        self.core_of(self.store.lane_of(&address.0))
    }

    /// The core that owns a lane.
    pub fn core_of(&self, lane: LaneId) -> CoreId {
        self.core_of_lane[usize::from(lane.0)]
    }
}
