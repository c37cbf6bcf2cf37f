//! Starts emulators so that none outlives the runner.
//!
//! Three nets, one below the other: a [`crate::Cluster`] that is dropped
//! kills its emulators; [`kill_all`], for signal handlers, kills all that run;
//! and each emulator is started through `setpriv --pdeathsig KILL`
//! (util-linux), so the kernel kills it when the thread that started it ends.
//! That thread is one of our own which lives as long as the process.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

/// A program and the file descriptors that it inherits under their numbers.
struct Request {
    command: Command,
    inherited: Vec<OwnedFd>,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// Processes that run, by their id; gone from here before they are reaped,
/// so that no signal can reach another process that got the same id.
static RUNNING: Mutex<Option<HashSet<u32>>> = Mutex::new(None);

/// Told whenever a process has left the list.
static ENDED: Condvar = Condvar::new();

/// The way to the thread that starts processes.
static STARTER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();

/// A process that was started.
#[derive(Clone, Debug)]
pub struct Running {
    id: u32,
}

impl Running {
    /// The process's id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Kills it at once, if it still runs.
    pub fn kill(&self) {
        with_running(|running| {
            if running.contains(&self.id) {
                send_kill(self.id);
            }
        });
    }
}

/// Builds the command that starts `program` with the death signal set, in a
/// process group of its own (a Ctrl-C at the terminal is for the runner).
pub(crate) fn guarded(program: &str) -> Command {
    guarded_on(program, None)
}

/// The same on one `processor` of the host's alone.
pub(crate) fn guarded_on(program: &str, processor: Option<usize>) -> Command {
    let mut words = Vec::new();
    if in_path("setpriv") {
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
    }
    if let Some(number) = processor.filter(|_| in_path("taskset")) {
        words.extend(["taskset".to_owned(), "--cpu-list".to_owned(), number.to_string()]);
    }
    words.push(program.to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command.process_group(0);
    command
}

/// Numbers of the processors that this process may use.
pub(crate) fn processors() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    parse_processors(list.unwrap_or_default())
}

/// Reads a list such as `0-2,5`.
fn parse_processors(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok();
        Some(number(first)?..=number(last)?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Whether a program is in one of the folders of `PATH`.
pub fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Starts a command that inherits `inherited` and returns its handle.
pub(crate) fn start(command: Command, inherited: Vec<OwnedFd>) -> io::Result<(Running, Child)> {
    let (reply, answer) = mpsc::channel();
    let starter = STARTER.get_or_init(|| {
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || serve(&requests));
        Mutex::new(sender)
    });
    let request = Request { command, inherited, reply };
    let gone = || io::Error::other("the thread that starts processes is gone");
    starter.lock().unwrap_or_else(PoisonError::into_inner).send(request).map_err(|_| gone())?;
    let child = answer.recv().map_err(|_| gone())??;
    Ok((Running { id: child.id() }, child))
}

/// Starts what is asked for, one after the other, for as long as the process
/// lives.
fn serve(requests: &mpsc::Receiver<Request>) {
    for Request { mut command, inherited, reply } in requests {
        let result = inherit(&inherited).and_then(|()| {
            with_running(|running| {
                let child = command.spawn()?;
                running.insert(child.id());
                Ok(child)
            })
        });
        // Our copies must go, or the ends of a dead emulator's sockets would
        // stay open; and before the answer, so that no other start sees them.
        drop(inherited);
        let _ = reply.send(result);
    }
}

/// Lets the next process inherit these descriptors.
fn inherit(descriptors: &[OwnedFd]) -> io::Result<()> {
    for descriptor in descriptors {
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// Waits for a process to end and forgets it.
pub(crate) fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let pid = Pid::from_raw(child.id().cast_signed());
    // Leaves the process unreaped, so that its id stays its own until it is
    // off the list.
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid), flags) == Err(nix::Error::EINTR) {}
    let status = with_running(|running| {
        running.remove(&child.id());
        child.wait()
    });
    ENDED.notify_all();
    status
}

/// Whether a process has ended; it stays to be waited for.
pub(crate) fn has_ended(child: &Child) -> bool {
    let pid = Pid::from_raw(child.id().cast_signed());
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    // An error says that it is nobody's child any more.
    !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive) | Err(nix::Error::EINTR))
}

/// Kills everything that was started and still runs, and waits until it is
/// gone, at most `limit`. For signal handlers and the like, where the owners
/// of the clusters cannot be reached.
pub fn kill_all(limit: Duration) {
    with_running(|running| running.iter().for_each(|&id| send_kill(id)));
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let some_left = |r: &mut Option<HashSet<u32>>| r.as_ref().is_some_and(|r| !r.is_empty());
    // What the limit cuts off is killed all the same.
    let _ = ENDED.wait_timeout_while(running, limit, some_left);
}

/// Sends the signal; a process that has ended meanwhile is no error.
fn send_kill(id: u32) {
    let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
}

/// Uses the list of running processes.
fn with_running<T>(f: impl FnOnce(&mut HashSet<u32>) -> T) -> T {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    f(running.get_or_insert_with(HashSet::new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn processors_are_numbers_and_ranges() {
        assert_eq!(parse_processors("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_processors("7"), [7]);
        assert!(parse_processors("").is_empty());
        assert!(!processors().is_empty());
    }

    #[test]
    fn a_process_has_a_processor_for_itself() {
        let number = processors()[0];
        let mut command = guarded_on("sh", Some(number));
        command.args(["-c", "grep Cpus_allowed_list /proc/self/status"]);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(text.trim(), format!("Cpus_allowed_list:\t{number}"));
    }

    #[test]
    fn a_killed_process_ends_and_is_forgotten() {
        let mut command = guarded("sleep");
        command.arg("600");
        let (running, child) = start(command, Vec::new()).unwrap();
        running.kill();
        let status = wait(child).unwrap();
        assert_eq!(status.signal(), Some(9));
        with_running(|list| assert!(!list.contains(&running.id())));
        // Has no effect any more.
        running.kill();
    }

    #[test]
    fn descriptors_are_inherited_and_closed_here() {
        use std::io::Read;
        use std::os::fd::AsRawFd;
        use std::os::unix::net::UnixStream;
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let number = theirs.as_raw_fd();
        let mut command = guarded("sh");
        command.args(["-c", &format!("echo hello >&{number}")]);
        let (_, child) = start(command, vec![theirs.into()]).unwrap();
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\n");
        assert!(wait(child).unwrap().success());
    }

    #[test]
    fn programs_are_found() {
        assert!(in_path("sh"));
        assert!(!in_path("no-such-program-anywhere"));
    }
}
