// Package hostapi is what upstream osbuild's programs talk to over sockets, from
// both sides: the API that a stage finds in a build root, and the services that
// prepare its inputs, devices and mounts on the host.
//
// A tour: [Conn] (conn.go, packet.go) is the transport, upstream's jsoncomm: one JSON
// document a packet, files beside it. [Serve] (api.go, remoteloop.go) makes what a
// program looks for in /run/osbuild/api: its arguments, the socket that takes its
// exceptions, and the one that attaches loop devices for it. [StartService]
// (service.go) starts a program of a library directory and calls its methods.
// [ServeStore] (store.go) is the socket that services of inputs call back.
//
// All servers are the same machine (server.go): many connections at once, requests
// answered in order on each, errors answered as exceptions. [Server.Close] answers
// what was sent before it, for a bounded time, and returns when nothing of the server
// is left: no goroutine, no socket, no device.
//
// What comes over a socket is never trusted: a document has a largest size, a
// connection that is not read or not written to holds nothing up but itself, and files
// nobody asked for are closed.
package hostapi
