# make image   install what is missing, build the command and the example image
# make test    every test, including boots of the example image in QEMU
# make test-build-env   those that use the host as build root, in one made of packages
# make test-slow  images of other architectures, made and booted by emulation; rules taken out
# make lint    formatting, vet, staticcheck, shellcheck
# make bench   times beside the hand-made pipeline (docs/performance.md)

GO ?= go
# The agent drops privileges for all its threads, which needs a program without cgo.
export CGO_ENABLED = 0
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: all build deps image test test-slow unit-test race-test test-build-env image-test lint bench reference clean

all: build

build:
	$(GO) build -trimpath -o bin/osbuild-star ./cmd/osbuild-star

deps:
	scripts/install-deps

image: deps build
	bin/osbuild-star build //images:debian12
	@echo
	@echo "The disk:           out/images/debian12/disk.qcow2"
	@echo "Start it:           bin/osbuild-star boot //images:debian12"
	@echo "Log in by ssh:      bin/osbuild-star boot --ssh //images:debian12"
	@echo "On its console:     user debian, password debian"

test: deps build unit-test race-test image-test

unit-test:
	$(GO) test -timeout 30m -p 2 ./...

# Servers under the race detector, which needs a C compiler.
race-test:
	CGO_ENABLED=1 $(GO) test -timeout 30m -race ./hostapi
	CGO_ENABLED=1 $(GO) test -timeout 30m -race ./engine -run 'Schedule|Downloads|KeepGoing|FailedDownload'

# The tests that use the host as build root, in a build environment of Debian's packages
# instead: OSBUILD_TEST_BUILD_ENV. The directory is on a disk, for /var, and has a short name,
# for sockets.
test-build-env: build
	@set -e; d=$$(mktemp -d /var/tmp/te.XXXX); chmod 755 "$$d"; trap 'chmod -R u+w "$$d"; rm -rf "$$d"' EXIT; \
	bin/osbuild-star manifest //images:build_env > "$$d/env.json"; \
	TMPDIR=$$d OSBUILD_TEST_BUILD_ENV=$$d/env.json $(GO) test -timeout 30m -count=1 -p 2 ./buildroot ./engine ./cmd/osbuild-star

# Builds //images:debian12 in its own build root and on the host, and boots what the
# image tests say: BIOS and UEFI. By emulation, so that every machine tests the same. And
# once more from nothing, to compare.
image-test: build
	bin/osbuild-star build //images/...
	OSBUILD_STAR_ACCEL=tcg bin/osbuild-star test --rerun //images/...
	OSBUILD_STAR_ACCEL=tcg OSBUILD_STAR_TEST_IMAGE=$(CURDIR)/out/images/debian12/disk.qcow2 $(GO) test -timeout 30m -count=1 -run 'SSH|NothingOfTheMachine' ./engine/vm ./cmd/osbuild-star
	bin/osbuild-star build --rebuild-check //images:debian12

# Builds //images:debian12 for other architectures and boots each to its login prompt,
# all of it emulated; and what else takes minutes: a tree of s390x beside the one that
# mmdebstrap makes, rules taken out of the program to see their tests fail, and builds
# that are killed 200 times and run out of disk 50 times.
test-slow: deps build
	bin/osbuild-star test --rerun -D security=false //slow/... //images:debian12
	bin/osbuild-star build -D security=false --rebuild-check //images:debian12@s390x
	OSBUILD_STAR_SLOW=1 $(GO) test -timeout 60m -p 1 -count=1 -v -run Foreign ./stages/deb ./buildroot
	OSBUILD_STAR_SLOW=1 $(GO) test -timeout 60m -count=1 ./internal/mutant
	OSBUILD_STAR_SLOW=1 $(GO) test -timeout 60m -count=1 -v -run '^TestCrash$$' ./cmd/osbuild-star

lint:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt: $$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	shellcheck -S warning scripts/* .ci/run bench/*.sh bench/peers/*.sh

bench: deps build
	bench/run.sh
	bench/matrix.sh

# The reference page is made from the tables that the program checks rule files by.
reference: build
	bin/osbuild-star reference > docs/reference.md

clean:
	rm -rf bin out
