//! `penstock-l7`: ends TLS and HTTP for the listeners that must read the request.
//!
//! The data plane punts the packets of an L7 VIP to the kernel, where the VIP is on the companion; here the
//! connection is accepted, and the client's address is the real one. The journey of a connection:
//!
//! 1. [`tier`]: the feed's state becomes a configuration, sockets are bound and closed, and what could not be
//!    done is in the acknowledgement;
//! 2. [`place`]: at one VIP and L4 port, which listener has which host name;
//! 3. [`accept`]: the connection is taken, or refused and counted;
//! 4. [`tls`]: its listener by SNI, with its certificates, and whether the client must show one;
//! 5. [`http`]: HTTP/1.1 or HTTP/2, and an answer: 404, for no route is served yet.
//!
//! [`counters`] has a name for each end that a connection can take, and [`report`] writes them each second.
//!
//! Nothing here is needed by an L4 flow: this process may die and return.

pub mod accept;
pub mod counters;
pub mod http;
pub mod place;
pub mod report;
pub mod tier;
pub mod tls;
