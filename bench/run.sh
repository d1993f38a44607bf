#!/bin/bash
# Times osbuild-star beside the hand-made pipeline (mmdebstrap, sfdisk, mke2fs -d) on the
# same target, in turn, and prints a table in Markdown with medians.
#   bench/run.sh [RUNS]     3 runs by default; WORK=DIR keeps what it makes
# The peer has its packages from a cache on loopback (apt-cacher-ng), osbuild-star from its
# store; neither uses the network in a counted run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
runs=${1:-3}
work=${WORK:-$(mktemp -d /var/tmp/osbuild-star-bench.XXXXXX)}
bin=${BIN:-$here/../bin/osbuild-star}
export OSBUILD_STAR_STORE=$work/store
mkdir -p "$work/ws" "$work/cache"
cp -r "$here/workspace/." "$work/ws/"
cacher=
cleanup() {
	[ -z "$cacher" ] || kill "$cacher" 2>/dev/null || true
	[ -n "${WORK:-}" ] || rm -rf --one-file-system "$work"
}
trap cleanup EXIT

command -v apt-cacher-ng >/dev/null || [ -x /usr/sbin/apt-cacher-ng ] || DEBIAN_FRONTEND=noninteractive apt-get install -y -q apt-cacher-ng >/dev/null
"$here/apt-cache.sh" "$work/cache"
cacher=$(cat "$work/cache/mypid")
for _ in $(seq 50); do (exec 3<>/dev/tcp/127.0.0.1/3142) 2>/dev/null && break; sleep 0.1; done
for suite in "debian bookworm" "debian bookworm-updates" "debian-security bookworm-security"; do
	echo "deb http://127.0.0.1:3142/$suite main"
done >"$work/sources.list"
cp "$here/handmade.sh" "$work/handmade.sh"

declare -A times
timed() { # timed NAME COMMAND...: adds the seconds that the command took
	local name=$1 start end
	shift
	start=$(date +%s.%N)
	"$@" >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; echo "failed: $*" >&2; exit 1; }
	end=$(date +%s.%N)
	times[$name]+=" $(echo "$end - $start" | bc)"
}
median() { tr ' ' '\n' <<<"${times[$1]# }" | sort -n | awk '{v[NR]=$1} END {printf "%.2f (%.2f to %.2f)", v[int((NR+1)/2)], v[1], v[NR]}'; }
star() { "$bin" -C "$work/ws" build -q "$@"; }
forget() { rm -rf --one-file-system "$work/store/objects" "$work/store/layers" "$work/store/tmp" "$work/ws/out"; }
peer() {
	rm -rf --one-file-system "$work/peer" "$work/peer.raw" "$work/peer.qcow2"
	WORK=$work/peer "$work/handmade.sh" "$work/peer.raw" && qemu-img convert -O qcow2 "$work/peer.raw" "$work/peer.qcow2"
}
peer_again() {
	HOSTNAME_=changed SKIP_ROOTFS=1 WORK=$work/peer "$work/handmade.sh" "$work/peer.raw" && qemu-img convert -O qcow2 "$work/peer.raw" "$work/peer.qcow2"
}

# Not counted: packages into the cache and the store, the lock.
peer >/dev/null 2>&1 || { WORK=$work/peer "$work/handmade.sh" "$work/peer.raw"; exit 1; }
star //images:box_host //images:box >/dev/null
for i in $(seq "$runs"); do
	forget
	timed cold_host star //images:box_host
	timed nothing star //images:box_host
	timed hostname star -D "hostname=h$i" //images:box_host
	timed back star //images:box_host
	timed peer peer
	timed peer_hostname peer_again
	forget
	timed cold_own star //images:box
done
rss=$(forget; /usr/bin/time -f %M "$bin" -C "$work/ws" build -q //images:box_host 2>&1 >/dev/null | tail -1)

cat <<T
| what | osbuild-star, s | by hand, s |
|---|---|---|
| cold, the host as build root | $(median cold_host) | $(median peer) |
| cold, a build root of its own | $(median cold_own) | |
| nothing changed | $(median nothing) | |
| hostname changed | $(median hostname) | $(median peer_hostname) |
| and changed back | $(median back) | |

Median (least to most) of $runs runs in turn; peak memory of osbuild-star itself $((rss / 1024)) MiB.
T

# What a stage costs that does nothing, beside upstream osbuild where OSBUILD_UPSTREAM names it.
echo
BIN=$bin "$here/noop.sh"
