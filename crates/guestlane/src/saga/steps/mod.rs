//! The steps of the saga: the calls that each sends, and the transition that it returns.

mod gateway;
mod link_and_route;
mod public_api;
