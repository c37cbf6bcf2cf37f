//! The price of the layer itself: the same guest on one node and straight in
//! the emulator. Printed as ratios; asserted for sanity only, as the times
//! are those of a busy host.

use system::{Door, number, serial};

/// Times in milliseconds that one run gave.
#[derive(Clone, Copy, Debug)]
struct Times {
    boot: f64,
    cpu: f64,
    memory: f64,
}

/// Boots the guest and lets it do its two loops. Times are the guest's own:
/// its clock counts from the kernel's start.
fn measure(options: &str) -> Times {
    // A loop of the shell, and 64 MiB copied eight times.
    let script = r#"up() { read t rest < /proc/uptime; echo "$1 ${t%.*}${t#*.}0"; }
        up boot
        i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done
        up cpu
        dd if=/dev/zero of=/dev/shm/a bs=1M count=64 2>/dev/null
        up filled
        n=0; while [ $n -lt 8 ]; do cat /dev/shm/a > /dev/shm/b; n=$((n+1)); done
        up memory"#;
    let run = Door::run("--nodes 1 --memory 512M").options(options).shell(script).within(240);
    let run = run.finish();
    run.expect(0);
    let text = run.text();
    let at = |key: &str| number(&text, key).unwrap_or_else(|| panic!("no {key} in {text}")) as f64;
    let times = Times {
        boot: at("boot "),
        cpu: at("cpu ") - at("boot "),
        memory: at("memory ") - at("filled "),
    };
    println!("{options}: {times:?}");
    times
}

#[test]
fn the_layer_has_its_price() {
    let _turn = serial("price of the layer");
    let bare = measure("--machine bare");
    let node = measure("--machine q35-svm");
    let ratios = [
        ("boot", node.boot / bare.boot),
        ("CPU-bound loop", node.cpu / bare.cpu),
        ("memory-bound loop", node.memory / bare.memory),
    ];
    for (what, ratio) in ratios {
        println!("{what:<18} {ratio:.2} times the same without Pangaea");
        // A NaN, a zero and a runaway fail alike.
        assert!((0.2..100.0).contains(&ratio), "{what}: {ratio}");
    }
}
