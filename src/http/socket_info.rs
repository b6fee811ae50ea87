//! What the kernel knows of one TCP connection: its state, and how much of what was sent the other side has acknowledged.
//!
//! On Linux it is asked over netlink (`NETLINK_SOCK_DIAG`, see sock_diag(7)), which needs no privileges, for exactly one
//! connection by its addresses. A look-up costs two system calls, which do not block. On other systems, and where a sandbox
//! forbids netlink, there is no such information.

use std::io;
use std::net::SocketAddr;

/// One TCP connection as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// Its state.
    pub state: TcpState,
    /// Bytes that came and were not read yet.
    pub unread_bytes: u32,
    /// Bytes that were written and that the other side has not acknowledged, sent or not.
    pub unacknowledged_bytes: u32,
    /// Bytes that the other side has acknowledged since the connection began. `None` on a kernel older than 4.1.
    pub acknowledged_bytes: Option<u64>,
}

/// The states of a TCP connection (RFC 9293 §3.3.2), as far as they tell who has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// Open on both sides.
    Established,
    /// The other side has closed, this one has not.
    CloseWait,
    /// Another state: opening, or closed by this side at least.
    Other,
}

impl SocketInfo {
    /// Looks a connection of this machine up by its addresses. `None` when there is none: it was reset, or closed by both
    /// sides. A connection of another network namespace is not found either. IPv4 addresses may be mapped to IPv6.
    ///
    /// # Errors
    /// The kernel gives no such information, `Unsupported` on systems other than Linux; or there are too many open files.
    pub fn look_up(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<SocketInfo>> {
        system::look_up(local, peer)
    }

    /// Whether the other side has acknowledged more than it had at `earlier`.
    pub fn is_ahead_of(&self, earlier: &SocketInfo) -> bool {
        match (self.acknowledged_bytes, earlier.acknowledged_bytes) {
            (Some(now), Some(then)) => now > then,
            // Nothing is written between two looks at a blocked write.
            (None, _) | (_, None) => self.unacknowledged_bytes < earlier.unacknowledged_bytes,
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{SocketAddr, SocketInfo, io};

    pub(super) fn look_up(_: SocketAddr, _: SocketAddr) -> io::Result<Option<SocketInfo>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::cell::RefCell;
    use std::net::IpAddr;

    use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
    use netlink_packet_sock_diag::SockDiagMessage;
    use netlink_packet_sock_diag::constants::{
        AF_INET, AF_INET6, IPPROTO_TCP, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_LISTEN,
    };
    use netlink_packet_sock_diag::inet::nlas::Nla;
    use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
    use netlink_sys::protocols::NETLINK_SOCK_DIAG;
    use netlink_sys::{Socket, SocketAddr as NetlinkAddress};

    use super::{SocketAddr, SocketInfo, TcpState, io};

    /// Longer than every request.
    const REQUEST_BYTES: usize = 128;
    /// Longer than every reply about one connection.
    const REPLY_BYTES: usize = 4096;
    /// `INET_DIAG_NOCOOKIE`: whichever socket has these addresses.
    const ANY_COOKIE: [u8; 8] = [0xff; 8];
    /// Where `struct tcp_info` has `tcpi_bytes_acked`.
    const BYTES_ACKED: std::ops::Range<usize> = 120..128;

    thread_local! {
        /// Made at the first look-up of a thread, and again after an error.
        static DIAGNOSTICS: RefCell<Option<Diagnostics>> = const { RefCell::new(None) };
    }

    pub(super) fn look_up(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<SocketInfo>> {
        DIAGNOSTICS.with_borrow_mut(|diagnostics| {
            let mut open = match diagnostics.take() {
                Some(open) => open,
                None => Diagnostics::open()?,
            };
            let found = open.look_up(local, peer)?;
            *diagnostics = Some(open);
            Ok(found)
        })
    }

    /// A netlink socket to the kernel's socket diagnostics.
    struct Diagnostics {
        socket: Socket,
        sequence: u32,
    }

    impl Diagnostics {
        /// # Errors
        /// There is no such socket, or the kernel has no diagnostics of TCP.
        fn open() -> io::Result<Diagnostics> {
            let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.bind_auto()?;
            socket.connect(&NetlinkAddress::new(0, 0))?;
            // The kernel answers within the system call that asks.
            socket.set_non_blocking(true)?;
            let mut diagnostics = Diagnostics { socket, sequence: 0 };
            // Without the diagnostics of TCP every connection would be unknown. A list of the sockets in none of the
            // states is empty and tells the difference.
            let nothing = InetRequest { states: StateFlags::empty(), ..request(AF_INET, SocketId::new_v4()) };
            match diagnostics.ask(nothing, NLM_F_REQUEST | NLM_F_DUMP)? {
                NetlinkPayload::Done(done) if done.code == 0 => Ok(diagnostics),
                NetlinkPayload::Done(done) => Err(io::Error::from_raw_os_error(-done.code)),
                NetlinkPayload::Error(error) => Err(error.to_io()),
                _ => Err(unexpected()),
            }
        }

        fn look_up(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<SocketInfo>> {
            let (source, destination) = match (local.ip().to_canonical(), peer.ip().to_canonical()) {
                addresses @ (IpAddr::V4(_), IpAddr::V4(_)) => addresses,
                _ => (local.ip(), peer.ip()),
            };
            let family = if source.is_ipv4() { AF_INET } else { AF_INET6 };
            let interface_id = match local {
                SocketAddr::V6(local) => local.scope_id(),
                SocketAddr::V4(_) => 0,
            };
            let id = SocketId {
                source_port: local.port(),
                destination_port: peer.port(),
                source_address: source,
                destination_address: destination,
                interface_id,
                cookie: ANY_COOKIE,
            };
            match self.ask(request(family, id), NLM_F_REQUEST)? {
                // Without a connection the kernel finds the socket that listens on the local address.
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                    Ok((found.header.state != TCP_LISTEN).then(|| SocketInfo::from(&*found)))
                }
                NetlinkPayload::Error(error) => match error.to_io() {
                    error if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    error => Err(error),
                },
                _ => Err(unexpected()),
            }
        }

        fn ask(&mut self, request: InetRequest, flags: u16) -> io::Result<NetlinkPayload<SockDiagMessage>> {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.flags = flags;
            header.sequence_number = self.sequence;
            let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
            message.finalize();
            let mut bytes = [0; REQUEST_BYTES];
            let length = message.buffer_len();
            message.serialize(&mut bytes[..length]);
            self.socket.send(&bytes[..length], 0)?;
            let mut reply = [0; REPLY_BYTES];
            let length = self.socket.recv(&mut &mut reply[..], 0)?;
            let reply = NetlinkMessage::<SockDiagMessage>::deserialize(reply.get(..length).ok_or_else(unexpected)?)
                .map_err(io::Error::other)?;
            // The socket is dropped after an error, so that no late reply is taken for that of the next request.
            if reply.header.sequence_number == self.sequence { Ok(reply.payload) } else { Err(unexpected()) }
        }
    }

    fn request(family: u8, socket_id: SocketId) -> InetRequest {
        let (extensions, states) = (ExtensionFlags::INFO, StateFlags::all());
        InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id }
    }

    fn unexpected() -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, "an unexpected reply of the socket diagnostics")
    }

    impl From<&InetResponse> for SocketInfo {
        fn from(found: &InetResponse) -> SocketInfo {
            let acknowledged_bytes = found.nlas.iter().find_map(|attribute| match attribute {
                Nla::TcpInfo(info) => Some(u64::from_ne_bytes(info.get(BYTES_ACKED)?.try_into().ok()?)),
                _ => None,
            });
            let state = match found.header.state {
                TCP_ESTABLISHED => TcpState::Established,
                TCP_CLOSE_WAIT => TcpState::CloseWait,
                _ => TcpState::Other,
            };
            SocketInfo {
                state,
                unread_bytes: found.header.recv_queue,
                unacknowledged_bytes: found.header.send_queue,
                acknowledged_bytes,
            }
        }
    }
}
