#!/bin/bash
# Times osbuild-star beside its peers on one target, in turn, and prints a table in
# Markdown with medians: the hand-made pipeline (mmdebstrap, sfdisk, mke2fs -d), debos where
# it is installed, and the mkosi that MKOSI names (it needs bubblewrap and python3-pefile).
#   bench/run.sh [RUNS]     3 runs by default; WORK=DIR keeps what it makes
# The peers have their packages from a cache on loopback (apt-cacher-ng), osbuild-star from
# its store; the package that a run adds is not in the store, and is fetched.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
runs=${1:-3}
work=${WORK:-$(mktemp -d /var/tmp/osbuild-star-bench.XXXXXX)}
bin=$(readlink -f "${BIN:-$here/../bin/osbuild-star}")
export OSBUILD_STAR_STORE=$work/store
mkdir -p "$work/ws" "$work/cache"
cp -r "$here/workspace/." "$work/ws/"
cacher=
cleanup() {
	[ -z "$cacher" ] || kill "$cacher" 2>/dev/null || true
	[ -n "${WORK:-}" ] || rm -rf --one-file-system "$work"
}
trap cleanup EXIT

[ -x /usr/sbin/apt-cacher-ng ] || DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends apt-cacher-ng >/dev/null
"$here/apt-cache.sh" "$work/cache"
cacher=$(cat "$work/cache/mypid")
for _ in $(seq 50); do (exec 3<>/dev/tcp/127.0.0.1/3142) 2>/dev/null && break; sleep 0.1; done
for suite in "debian bookworm" "debian bookworm-updates" "debian-security bookworm-security"; do
	echo "deb http://127.0.0.1:3142/$suite main"
done >"$work/sources.list"
cp "$here/peers/handmade.sh" "$work/handmade.sh"
extras=(tree file less nano bc time rsync pv jq lsof) # none is part of the target

declare -A times
timed() { # timed NAME COMMAND...: adds the seconds that the command took
	local name=$1 start end
	shift
	start=$(date +%s.%N)
	"$@" >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; echo "failed: $*" >&2; exit 1; }
	end=$(date +%s.%N)
	times[$name]+=" $(echo "$end - $start" | bc)"
	echo "$name $(echo "$end - $start" | bc)" >&2
}
median() { # median NAME: nothing was taken of it: a dash
	[ -n "${times[$1]:-}" ] || { printf -- '–'; return; }
	tr ' ' '\n' <<<"${times[$1]# }" | sort -n | awk '{v[NR]=$1} END {printf "%.2f (%.2f to %.2f)", v[int((NR+1)/2)], v[1], v[NR]}'
}
star() { "$bin" -C "$work/ws" build -q "$@"; }
forget() { rm -rf --one-file-system "$work/store"/{objects,layers,links,sums,pins,tests,history,tmp} "$work/ws/out"; }
# shellcheck disable=SC2120
peer() { # peer [EXTRA]
	rm -rf --one-file-system "$work/peer" "$work/peer.raw" "$work/peer.qcow2"
	EXTRA=${1:-} WORK=$work/peer "$work/handmade.sh" "$work/peer.raw" && qemu-img convert -O qcow2 "$work/peer.raw" "$work/peer.qcow2"
}
peer_again() {
	HOSTNAME_=changed SKIP_ROOTFS=1 WORK=$work/peer "$work/handmade.sh" "$work/peer.raw" && qemu-img convert -O qcow2 "$work/peer.raw" "$work/peer.qcow2"
}
# debos mounts, and loop devices stay when it fails: in a mount namespace, with stand-ins for
# the device mapper and udev, which a container lacks.
# shellcheck disable=SC2120
debos_run() { # debos_run [-t name:value]...
	mkdir -p "$work/debos"
	PATH=$here/peers/shim:$PATH unshare -m debos --disable-fakemachine --artifactdir="$work/debos" "$@" "$here/peers/debos.yaml" &&
		qemu-img convert -O qcow2 "$work/debos/peerbox.raw" "$work/debos/peerbox.qcow2"
}
debos=
if [ -z "${NO_DEBOS:-}" ] && command -v debos >/dev/null; then debos=1; fi
mkosi_run() { (cd "$work/mkosi" && PATH=/usr/sbin:/usr/bin:/sbin:/bin "$MKOSI" "$@" build); }
# shellcheck disable=SC2120
mkosi_cold() { # mkosi_cold [OPTION]...
	rm -rf --one-file-system "$work/mkosi/cache" "$work/mkosi/out"
	mkdir "$work/mkosi/cache" "$work/mkosi/out"
	mkosi_run -f "$@"
}
change_program() { echo "# changed $1" >>"$work/ws/programs/stages/org.example.stamp"; }

# Not counted: packages into the cache and the store, the lock.
peer >/dev/null 2>&1 || { WORK=$work/peer "$work/handmade.sh" "$work/peer.raw"; exit 1; }
star //images:box_host //images:box >/dev/null
[ -z "$debos" ] || debos_run >"$work/log" 2>&1 || { tail -5 "$work/log" >&2; echo "debos does not work here: going on without" >&2; debos=; }
if [ -n "${MKOSI:-}" ]; then
	cp -r "$here/peers/mkosi" "$work/mkosi"
	mkdir -p "$work/mkosi/sandbox/etc/apt/sources.list.d"
	for suite in "debian bookworm" "debian bookworm-updates" "debian-security bookworm-security"; do
		printf 'Types: deb\nURIs: http://127.0.0.1:3142/%s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n' "${suite% *}" "${suite#* }"
	done >"$work/mkosi/sandbox/etc/apt/sources.list.d/mkosi.sources"
	mkosi_cold >"$work/log" 2>&1 || { tail -5 "$work/log" >&2; exit 1; }
fi
for i in $(seq "$runs"); do
	forget
	timed cold_host star //images:box_host
	timed nothing star //images:box_host
	timed hostname star -D "hostname=h$i" //images:box_host
	timed back star //images:box_host
	timed package star -D "extra=${extras[i % ${#extras[@]}]}" //images:box_host
	timed package_back star //images:box_host
	change_program "$i"
	timed program star //images:box_host
	timed peer peer
	timed peer_hostname peer_again
	timed peer_package peer "${extras[i % ${#extras[@]}]}"
	if [ -n "$debos" ]; then
		timed debos debos_run
		timed debos_hostname debos_run -t hostname:changed
		timed debos_package debos_run -t "extra:${extras[i % ${#extras[@]}]}"
	fi
	if [ -n "${MKOSI:-}" ]; then
		timed mkosi mkosi_cold
		timed mkosi_nothing mkosi_run
		timed mkosi_hostname mkosi_run -f --hostname="changed$i"
		timed mkosi_back mkosi_run -f
		timed mkosi_package mkosi_run -f --package="${extras[i % ${#extras[@]}]}"
		timed mkosi_package_back mkosi_run -f
	fi
	forget
	timed cold_own star //images:box
done
"$bin" -C "$work/ws" build -q //images:box_host >/dev/null
# A kernel that prints into a login can spoil it: once more then.
boots() { OSBUILD_STAR_ACCEL=tcg "$bin" -C "$work/ws" test //images:box_boot || OSBUILD_STAR_ACCEL=tcg "$bin" -C "$work/ws" test //images:box_boot; }
timed test boots
timed test_again boots
peak() { # peak COMMAND...: MiB of the tree of processes, looked at ten times a second
	"$@" >/dev/null 2>&1 &
	local pid=$! most=0 now
	while kill -0 $pid 2>/dev/null; do
		now=$(ps -e -o pid=,ppid=,rss= | awk -v root=$pid '{p[$1]=$2; r[$1]=$3} END {for (i in p) {j=i; while (j>1 && j!=root) j=p[j]; if (j==root) s+=r[i]} print int(s/1024)}')
		[ "$now" -gt "$most" ] && most=$now
		sleep 0.1
	done
	wait $pid || true
	echo "$most"
}
forget
star_peak=$(peak "$bin" -C "$work/ws" build -q //images:box_host)
peer_peak=$(export -f peer; export work; peak bash -c peer)

cat <<T
| what | osbuild-star, s | by hand, s | debos, s | mkosi, its tree alone, s |
|---|---|---|---|---|
| cold, the host as build root | $(median cold_host) | $(median peer) | $(median debos) | $(median mkosi) |
| cold, a build root of its own | $(median cold_own) | | | |
| nothing changed | $(median nothing) | the same | the same | $(median mkosi_nothing), its inputs not looked at |
| hostname changed | $(median hostname) | $(median peer_hostname), its tree kept by hand | $(median debos_hostname) | $(median mkosi_hostname) |
| and changed back | $(median back) | | | $(median mkosi_back) |
| one package more | $(median package) | $(median peer_package) | $(median debos_package) | $(median mkosi_package) |
| and taken away again | $(median package_back) | | | $(median mkosi_package_back) |
| the program of a stage changed | $(median program) | | | |
| the image's boot test | $(median test) | | | |
| and again | $(median test_again) | | | |

Median (least to most) of $runs runs in turn; the boot tests once. Peak memory of all processes:
osbuild-star $star_peak MiB, by hand $peer_peak MiB.
T

# What a stage costs that does nothing, beside upstream osbuild where OSBUILD_UPSTREAM names it.
echo
BIN=$bin "$here/noop.sh"
