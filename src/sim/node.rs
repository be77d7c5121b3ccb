//! The simulated node: cores of production on a simulated disk.

use std::sync::Arc;

use shards::AlignedBuf;
use shards::io::LaneId;
use shards::testing::{Rng, SimDisk};
use shards::{Store, StoreConfig, StoreId};

use crate::link::{LinkCrypto, NodeKey, Seed, ServerLinkConfig};
use crate::node::{Core, Deadlines, RecoveryPlan, Reply, SessionLimits, Shared};
use crate::relay::{Rate, RelayLimits, Window};
use crate::rt::api::{ConnId, CoreId, Effects, Next, Now};
use crate::rt::crossing::{CrossingSizes, mesh};
use crate::stats::{CoreCounters, CoreStats, per_core};
use crate::wire::NodeId;

pub(super) const LANES: u16 = 4;
const SEGMENT_BYTES: u32 = 256 * 1024;
const BATCH_BYTES: usize = 16 * 1024;
const NO_LIMIT: Rate = Rate { per_s: 0, burst: 0 };

/// One core and what its runtime would keep.
pub(super) struct SimCore {
    pub core: Core,
    pub effects: Effects,
    pub next: Next,
    pub next_slot: u32,
    pub generation: u32,
}

impl SimCore {
    /// A fresh connection id; slots are not used again, which the logic may not rely on.
    pub(super) fn new_conn(&mut self) -> ConnId {
        self.generation += 1;
        self.next_slot += 1;
        ConnId { slot: self.next_slot - 1, generation: self.generation }
    }
}

/// What outlives a crash.
pub(super) struct Machine {
    pub disk: SimDisk,
    key_seed: [u8; 32],
    store: Store,
    link: Arc<ServerLinkConfig>,
    segments_per_lane: u32,
    starts: u64,
}

impl Machine {
    pub(super) fn format(seed: u64, segments_per_lane: u32) -> Self {
        let disk = SimDisk::new(seed);
        let key_seed = blake3::hash(&seed.to_le_bytes()).into();
        let key = NodeKey::from_seed(Seed::from(key_seed)).unwrap();
        let config = StoreConfig {
            lanes: LANES,
            segment_bytes: SEGMENT_BYTES,
            segments_per_lane: 2,
            store_id: StoreId([7; 16]),
            mixing_secret: key_seed,
            node_id: key.node_id().0,
            created_ms: 1,
        };
        let store = Store::format(&disk, &config).unwrap();
        let link = Arc::new(ServerLinkConfig::new(&key, &LinkCrypto::seeded(seed)).unwrap());
        Self { disk, key_seed, store, link, segments_per_lane, starts: 0 }
    }

    pub(super) fn node_id(&self) -> NodeId {
        NodeKey::from_seed(Seed::from(self.key_seed)).unwrap().node_id()
    }

    /// The core that owns a lane when there are so many.
    pub(super) fn core_of(&self, lane: LaneId, cores: u16) -> usize {
        usize::from(self.store.core_of_lane(lane, cores))
    }

    fn shared(&self, cores: u16) -> Shared {
        let lanes = (0..LANES).map(LaneId);
        Shared {
            node_id: self.node_id(),
            link: Arc::clone(&self.link),
            store: self.store.clone(),
            core_of_lane: lanes.map(|lane| CoreId(self.store.core_of_lane(lane, cores))).collect(),
            relay: limits(),
            sessions: SessionLimits {
                connections: 1_000,
                opening: 1_000,
                per_prefix: 1_000,
                prefix_rate: NO_LIMIT,
                send_window: 32,
                window: Window { messages: 16, bytes: 16 * 1024 },
            },
            deadlines: Deadlines {
                tls_us: 5_000_000,
                login_us: 3_000_000,
                stall_us: 30_000_000,
                idle_us: 600_000_000,
            },
        }
    }

    /// Starts the node on so many cores from what the disk holds.
    pub(super) fn start(&mut self, now: Now, cores: u16) -> Vec<SimCore> {
        self.starts += 1;
        let stats: Arc<[CoreStats]> = per_core(cores);
        let shared = Arc::new(self.shared(cores));
        let sizes = CrossingSizes { request_bytes: 256 * 1024, reply_slots: 64, control_slots: 8 };
        let meshes = mesh::<Reply>(cores, sizes);
        let start = |crossings: crate::rt::crossing::CoreCrossings<Reply>| {
            let core = crossings.core();
            let stats = CoreCounters::new(&stats, core.0);
            let plan = RecoveryPlan {
                shared: &shared,
                core,
                cores,
                segments_per_lane: self.segments_per_lane,
                buffers_per_lane: 2,
                hash_seed: self.starts,
                now,
            };
            let lanes = self.store.lanes_of_core(core.0, cores).len();
            let buffers = (0..lanes * 2).map(|_| AlignedBuf::zeroed(BATCH_BYTES)).collect();
            let recovery = plan.recover(&self.disk, &stats, buffers).unwrap();
            let shared = Arc::clone(&shared);
            let core = Core::new(core, shared, stats, crossings, None, 64, self.starts, recovery);
            SimCore { core, effects: Effects::default(), next: Next::Now, next_slot: 0, generation: 0 }
        };
        meshes.into_iter().map(start).collect()
    }
}

fn limits() -> RelayLimits {
    RelayLimits {
        mailbox_messages: 10_000,
        mailbox_bytes: 64 << 20,
        mailboxes: 1_000,
        queued_messages: 100_000,
        devices: 4,
        dedup_ids: 4_096,
        dedup_ids_core: 1_000_000,
        dedup_s: 86_400,
        ttl_default_s: 30 * 86_400,
        ttl_max_s: 30 * 86_400,
        device_retention_s: 60 * 86_400,
        sender_messages: NO_LIMIT,
        sender_bytes: NO_LIMIT,
        reads: 4,
    }
}

/// Two nodes of the same seed draw the same choices.
pub(super) fn pick(rng: &mut Rng, end: usize) -> usize {
    rng.below(end as u64) as usize
}
