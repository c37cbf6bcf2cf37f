//! `cargo pangaea` with a time limit.

use crate::processes::Mark;
use crate::{Finished, Folder, build};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsString;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the door has to end once it is told to.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often a run is looked at that has nothing new yet.
const TICK: Duration = Duration::from_millis(200);

/// A command line of the door.
pub struct Door {
    words: Vec<OsString>,
    limit: Duration,
    logs: Folder,
}

impl Door {
    /// `cargo pangaea VERB`, at most two minutes.
    #[must_use]
    pub fn new(verb: &str) -> Door {
        Door { words: vec![verb.into()], limit: Duration::from_secs(120), logs: Folder::new() }
    }

    /// `cargo pangaea run` with logs that a failed test can print.
    #[must_use]
    pub fn run(options: &str) -> Door {
        let door = Door::new("run").word("--log-dir");
        let folder = door.logs.path().to_owned();
        door.word(folder).options(options)
    }

    /// Adds options, separated by spaces.
    #[must_use]
    pub fn options(mut self, words: &str) -> Door {
        self.words.extend(words.split_ascii_whitespace().map(OsString::from));
        self
    }

    /// Adds one word as it is.
    #[must_use]
    pub fn word(mut self, word: impl Into<OsString>) -> Door {
        self.words.push(word.into());
        self
    }

    /// Adds the command for the guest; after all options.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Door {
        self.words.push("--".into());
        self.words.extend(words.iter().map(OsString::from));
        self
    }

    /// Adds a line for the guest's shell; after all options.
    #[must_use]
    pub fn shell(self, line: &str) -> Door {
        self.command(&["sh", "-c", line])
    }

    /// Sets the time limit.
    #[must_use]
    pub fn within(mut self, seconds: u64) -> Door {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(self) -> Started {
        let mark = Mark::new();
        let mut command = Command::new(build::door());
        let (name, value) = mark.variable();
        command.args(&self.words).env(name, value).current_dir(build::workspace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        let id = child.id();
        let stdout = Stream::read(child.stdout.take().expect("it is piped"));
        let stderr = Stream::read(child.stderr.take().expect("it is piped"));
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || ended.send(child.wait()));
        let begun = Instant::now();
        Started { line, id, begun, limit: self.limit, logs: self.logs, mark, stdout, stderr, end }
    }

    /// Runs it to its end, and makes sure that nothing was left running.
    ///
    /// # Panics
    /// If anything was.
    #[must_use]
    pub fn finish(self) -> Finished {
        self.start().finish()
    }
}

/// A door that was started.
pub struct Started {
    line: String,
    id: u32,
    begun: Instant,
    limit: Duration,
    /// The logs of the nodes.
    pub logs: Folder,
    /// Marks the processes of this run.
    pub mark: Mark,
    stdout: Stream,
    stderr: Stream,
    end: Receiver<std::io::Result<ExitStatus>>,
}

impl Started {
    /// Waits until standard output holds `text`; `false` if it never did
    /// within the time limit.
    #[must_use]
    pub fn wait_for_output(&self, text: &str) -> bool {
        self.stdout.wait_for(text.as_bytes(), self.begun + self.limit)
    }

    /// The door's own process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.id
    }

    /// What `cargo pangaea top` shows of this run.
    #[must_use]
    pub fn top(&self) -> Value {
        let top = Door::new("top").options("--json --wait 60 --process");
        top.word(self.id.to_string()).finish().expect(0).record().0
    }

    /// The same, once its first node has been up for longer than that.
    ///
    /// # Panics
    /// If it was not within the time limit.
    #[must_use]
    pub fn top_after(&self, uptime_s: f64) -> Value {
        loop {
            let view = self.top();
            if view["nodes"][0]["uptime_s"].as_f64().is_some_and(|up| up > uptime_s) {
                return view;
            }
            assert!(self.begun.elapsed() < self.limit, "not up for {uptime_s} s: {view}");
            std::thread::sleep(TICK);
        }
    }

    /// Sends the door itself a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.id, signal);
    }

    /// Kills a node's emulator, as `kill -9` does.
    ///
    /// # Panics
    /// If the node has none.
    pub fn kill_node(&self, node: u8) {
        let id = self.mark.emulator(node).unwrap_or_else(|| panic!("node {node} does not run"));
        send(id, Signal::SIGKILL);
    }

    /// Waits for its end, and makes sure that nothing was left running.
    ///
    /// # Panics
    /// If anything was.
    #[must_use]
    pub fn finish(self) -> Finished {
        let left = self.limit.saturating_sub(self.begun.elapsed());
        let status = match self.end.recv_timeout(left) {
            Ok(status) => status.ok().and_then(|s| s.code()),
            Err(_) => {
                self.end_it();
                None
            }
        };
        let took = self.begun.elapsed();
        let left = self.mark.processes();
        // Their ends of the pipes would be waited for below.
        left.iter().for_each(|&(id, _)| send(id, Signal::SIGKILL));
        let stdout = self.stdout.finish();
        let stderr = String::from_utf8_lossy(&self.stderr.finish()).into_owned();
        let finished = Finished { line: self.line, status, stdout, stderr, took, logs: self.logs };
        assert!(left.is_empty(), "left running: {left:?}");
        finished
    }

    /// Ends a door that is over its limit.
    fn end_it(&self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            send(self.id, signal);
            if self.end.recv_timeout(END_LIMIT).is_ok() {
                return;
            }
        }
    }
}

/// Sends a signal; to a process that has ended meanwhile is no error.
fn send(id: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(id.cast_signed()), signal);
}

/// An output stream that is read to its end by a thread of its own.
struct Stream {
    shared: Arc<(Mutex<Vec<u8>>, Condvar)>,
    reader: JoinHandle<()>,
}

impl Stream {
    /// Starts to read.
    fn read(mut source: impl Read + Send + 'static) -> Stream {
        let shared: Arc<(Mutex<Vec<u8>>, Condvar)> = Arc::default();
        let theirs = Arc::clone(&shared);
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(len @ 1..) = source.read(&mut buffer) {
                let mut bytes = theirs.0.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend_from_slice(&buffer[..len]);
                theirs.1.notify_all();
            }
        });
        Stream { shared, reader }
    }

    /// Waits until the stream holds `text`.
    fn wait_for(&self, text: &[u8], deadline: Instant) -> bool {
        let lacks = |bytes: &mut Vec<u8>| !bytes.windows(text.len()).any(|w| w == text);
        let bytes = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.shared.1.wait_timeout_while(bytes, left, lacks);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// All that the stream held.
    fn finish(self) -> Vec<u8> {
        // A thread of ours that panicked has said so already.
        let _ = self.reader.join();
        std::mem::take(&mut self.shared.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
