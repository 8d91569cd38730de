//! The flow against the simulator: real sockets, a real database, a clock that waits an hour in a millisecond.

mod crm;
mod defects;
mod flow;
mod recovery;
mod world;
