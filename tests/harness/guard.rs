//! Nothing outlives the tests: a process of its own waits for this one to end, however it ends, and then kills what
//! was started and removes the files.
//!
//! It learns of both through a pipe. When this process is gone, even by SIGKILL, the pipe is at its end.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock},
};

/// Lines are `watch SIGNAL PID`, `forget PID`, `remove FOLDER`, `unmount FOLDER`.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
watched=""
folders=""
mounts=""
while read -r verb first second; do
    case "$verb" in
        watch) watched="$watched $first:$second" ;;
        forget)
            rest=""
            for entry in $watched; do [ "${entry#*:}" = "$first" ] || rest="$rest $entry"; done
            watched="$rest" ;;
        remove) folders="$folders $first" ;;
        unmount) mounts="$mounts $first" ;;
    esac
done
for entry in $watched; do kill "-${entry%:*}" "${entry#*:}" 2>/dev/null; done
for entry in $watched; do
    tries=0
    while kill -0 "${entry#*:}" 2>/dev/null && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -KILL "${entry#*:}" 2>/dev/null
done
for mount in $mounts; do umount -l "$mount" 2>/dev/null; done
for folder in $folders; do rm -rf "$folder"; done
"#;

#[expect(clippy::zombie_processes, reason = "the guard waits for our end")]
fn tell(line: &str) {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        let mut guard = Command::new("sh");
        guard.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut guard = guard.spawn().expect("a shell can be started");
        Mutex::new(guard.stdin.take().expect("standard input was piped"))
    });
    let mut pipe = pipe.lock().expect("nothing panics while it holds this lock");
    writeln!(pipe, "{line}").expect("the guard lives as long as we do");
}

/// Has the process ended by `signal` when the tests end.
pub fn watch(signal: &str, pid: u32) {
    tell(&format!("watch {signal} {pid}"));
}

/// The process has ended: its number may soon be another's.
pub fn forget(pid: u32) {
    tell(&format!("forget {pid}"));
}

/// Something is mounted there, and will be until the tests end or before.
pub fn unmount(folder: &Path) {
    tell(&format!("unmount {}", folder.display()));
}

/// A folder for the files of this run; it goes when the tests end.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("skald-e2e-").tempdir().expect("there is room for files").keep();
        // PostgreSQL may run as another user, who must get through.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
        tell(&format!("remove {}", folder.display()));
        folder
    })
}
