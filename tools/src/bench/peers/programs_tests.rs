//! Tests of the programs' figures: what they print, and what is refused.

use super::*;
use crate::bench::measure::Line;

const SIZES: Sizes = Sizes { local_mib: 128, touches: 1, requests: 2000 };

/// As stress-ng 0.15.06 prints it.
const STRESS_SAYS: &str = "\
stress-ng: info:  [107] dispatching hogs: 1 vm
stress-ng: metrc: [107] stressor       bogo ops real time  usr time  sys time   bogo ops/s     bogo ops/s
stress-ng: metrc: [107]                           (secs)    (secs)    (secs)   (real time) (usr+sys time)
stress-ng: metrc: [107] vm                 8192      1.81      0.23      0.66      4537.17        9130.68
stress-ng: info:  [107] successful run completed in 1.81s
status 0
";

/// As redis-benchmark 7.0 prints it, once for each kind.
const BENCHMARK_SAYS: &str = r#"
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"GET","14492.75","0.063","0.016","0.023","0.031","1.039","11.551"
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","500.00","0.063","0.016","0.031","0.055","1.871","4.351"
"#;

const REDIS_SAYS: &str = "\
filled:65633
used_memory:276859096
used_memory_human:264.03M
evicted_keys:0
keyspace_hits:2000
keyspace_misses:0
total_error_replies:0
right:7970
set:235
wrong:0
lost:0
keys:65633
";

fn measured(stress: &str, redis: &str, benchmark: &str) -> Measured {
    let mut measured = Measured::default();
    for (program, said) in [(STRESS, stress), (REDIS, redis), (BENCHMARK, benchmark)] {
        for text in said.lines() {
            let (program, text) = (program.to_owned(), text.to_owned());
            measured.take(Line::Said { program, text }).unwrap();
        }
    }
    measured
}

fn programs(rows: &[(Setup, Measured)]) -> Programs {
    let mut programs = Programs::default();
    for (setup, measured) in rows {
        for workload in [Workload::Stress, Workload::Redis] {
            programs.take(*setup, workload, measured, SIZES).unwrap();
        }
    }
    programs.compare();
    programs
}

#[test]
fn figures_are_read_from_what_programs_print() {
    let stress = Stress::new(STRESS_SAYS, SIZES).unwrap();
    assert_eq!(stress, Stress { seconds: 1.81, operations: 8192 });
    let redis = Redis::new(REDIS_SAYS, BENCHMARK_SAYS, SIZES).unwrap();
    assert_eq!(redis.get, Requests { requests_s: 14492.75, p50_us: 23.0, p99_us: 1039.0 });
    assert_eq!(redis.set.requests_s, 500.0);
}

#[test]
fn stress_ng_that_failed_is_refused() {
    let why = |said: &str| Stress::new(said, SIZES).unwrap_err().to_string();
    let failed =
        format!("{STRESS_SAYS}stress-ng: fail:  [108] moving inversion: detected 2 errors");
    assert!(why(&failed).contains("detected 2 errors"), "{}", why(&failed));
    assert!(why(&STRESS_SAYS.replace("status 0", "status 2")).contains("status 2"));
    assert!(why("stress-ng: info: nothing\n").contains("status unknown"));
    assert!(why(&STRESS_SAYS.replace(" 8192 ", " 8000 ")).contains("8000 operations of 8192"));
    assert!(why(&STRESS_SAYS.replace("metrc", "other")).contains("no metrics"));
}

#[test]
fn redis_that_lost_anything_is_refused() {
    let why = |redis: &str| Redis::new(redis, BENCHMARK_SAYS, SIZES).unwrap_err().to_string();
    for (name, good) in [
        ("filled", "65633"),
        ("\nkeys", "65633"),
        ("evicted_keys", "0"),
        ("keyspace_misses", "0"),
        ("total_error_replies", "0"),
        ("keyspace_hits", "2000"),
        ("wrong", "0"),
        ("lost", "0"),
        ("right", "7970"),
        ("used_memory", "276859096"),
    ] {
        let bad = REDIS_SAYS.replace(&format!("{name}:{good}\n"), &format!("{name}:7\n"));
        assert_ne!(bad, REDIS_SAYS, "{name}");
        assert!(why(&bad).contains('7'), "{name}: {}", why(&bad));
    }
    assert!(why("filled:65633\n").contains("does not tell keys"));
}

#[test]
fn requests_without_figures_are_refused() {
    for csv in ["", "Error from server: x\n", "\"test\",\"rps\"\n\"GET\",\"1.0\"\n"] {
        assert!(Redis::new(REDIS_SAYS, csv, SIZES).is_err(), "{csv}");
    }
}

#[test]
fn ratios_are_of_times() {
    let slow =
        (STRESS_SAYS.replace(" 1.81 ", " 18.1 "), BENCHMARK_SAYS.replace("500.00", "125.00"));
    let rows = [
        (Setup::Pangaea, measured(STRESS_SAYS, REDIS_SAYS, BENCHMARK_SAYS)),
        (Setup::NbdSwap, measured(&slow.0, REDIS_SAYS, &slow.1)),
    ];
    let programs = programs(&rows);
    let json = serde_json::to_value(&programs).unwrap();
    assert_eq!(json[1]["setup"], "nbd-swap");
    let ratios = &json[1]["times_pangaea"];
    assert!((ratios["stress"].as_f64().unwrap() - 10.0).abs() < 1e-9);
    assert_eq!((&ratios["redis_get"], &ratios["redis_set"]), (&1.0.into(), &4.0.into()));
    let table = programs.table(128);
    assert!(table.contains("10.00") && table.contains("128 MiB local"), "{table}");
}

#[test]
fn what_was_not_run_has_no_figure() {
    let mut programs = Programs::default();
    let measured = measured(STRESS_SAYS, "", "");
    programs.take(Setup::NbdSwap, Workload::Stress, &measured, SIZES).unwrap();
    programs.compare();
    let row = programs.table(64);
    let row = row.lines().find(|line| line.contains("page-cluster 0")).unwrap();
    assert_eq!(row.split_whitespace().filter(|cell| *cell == "-").count(), 9, "{row}");
    assert!(programs.take(Setup::NbdSwap, Workload::Redis, &measured, SIZES).is_err());
}
