//! Connections: two streams of bytes that arrive late and in any cut, and may break.

use std::collections::VecDeque;

use crate::rt::api::{ConnId, CoreId};

/// Bytes a direction holds before the sender has to wait.
const PIPE_BYTES: usize = 48 * 1024;

/// One TCP connection of a user to the node.
pub(super) struct Pipe {
    pub user: usize,
    /// The core and slot that own the node's end.
    pub core: CoreId,
    pub conn: ConnId,
    pub to_node: VecDeque<u8>,
    pub to_user: VecDeque<u8>,
    /// A buffer of the node that was not taken wholly yet, and how much was.
    pub sending: Option<(Vec<u8>, usize)>,
    /// The node wants to receive.
    pub receiving: bool,
    /// Either side closed: the node has not been told yet.
    pub broken: bool,
    /// The node asked for it.
    pub closed_by_node: bool,
}

impl Pipe {
    pub(super) fn new(user: usize, core: CoreId, conn: ConnId) -> Self {
        Self {
            user,
            core,
            conn,
            to_node: VecDeque::new(),
            to_user: VecDeque::new(),
            sending: None,
            receiving: true,
            broken: false,
            closed_by_node: false,
        }
    }

    /// Room for what the user wants to send.
    pub(super) fn room_to_node(&self) -> usize {
        PIPE_BYTES.saturating_sub(self.to_node.len())
    }

    /// Moves up to `bytes` of the node's buffer into the pipe. Returns the buffer when all of it was taken.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let room = PIPE_BYTES.saturating_sub(self.to_user.len());
        let (buffer, taken) = self.sending.as_mut()?;
        let part = bytes.min(room).min(buffer.len() - *taken);
        self.to_user.extend(&buffer[*taken..*taken + part]);
        *taken += part;
        if *taken < buffer.len() {
            return None;
        }
        self.sending.take().map(|(buffer, _)| buffer)
    }
}
