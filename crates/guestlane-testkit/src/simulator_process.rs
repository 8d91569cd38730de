//! A simulator in a process of its own.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// A simulator in a process of its own, which is killed on drop.
pub struct SimulatorProcess {
    child: Child,
    /// What the simulator printed when it started.
    pub startup: Value,
}

impl SimulatorProcess {
    /// Starts a simulator on a free port: the executable of this command, with these flags.
    pub fn start(mut executable: Command, flags: &[&str]) -> Self {
        let mut child = executable
            .args(["simulate", "--listen", "127.0.0.1:0", "--json"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let startup = serde_json::from_str(&line).unwrap();
        Self { child, startup }
    }
}

impl Drop for SimulatorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
