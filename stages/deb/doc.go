// Package deb installs Debian packages into a tree, as dpkg would, but faster: the
// archives are read, decompressed and unpacked here, several at once, and dpkg's
// database is written here. Scripts of packages run in the tree, and configuring is
// left to the dpkg of the tree.
//
// # What is done, and in which order
//
// [Install] reads the control data of all archives and makes rounds of them:
//
//   - Round 0 exists only in a tree without packages: the essential packages with
//     all that they depend on. They are unpacked before any of their scripts runs,
//     since a script needs a shell; then their preinst scripts run, base-passwd's
//     first. This is debootstrap's way, and the only deviation from dpkg's order:
//     these scripts find the files of the packages of their round in place.
//   - Round 1: everything else. A preinst script runs before any package of its
//     round is unpacked, after round 0 has been configured.
//   - Later rounds: packages with a preinst script (or that need the real dpkg) whose
//     Pre-Depends are in an earlier round, which are configured first.
//
// Packages that are installed already in the same version are skipped. Those that
// replace another version, or that have to take files from installed packages or
// conflict with them, are given to the dpkg of the tree.
//
// # What makes the result the same every time
//
// Packages have an order (round, then dependencies, then name). Whatever
// depends on an order in dpkg (who gives a shared directory its mode, which of two
// packages wins a file that one of them replaces, the order of trigger interests)
// depends on that order here, however the workers happen to run.
package deb
