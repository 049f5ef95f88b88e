//go:build !linux

package reactor

// The engine stands on epoll, eventfd and accept4: Linux is the platform, and
// this line is here to say so when the package is compiled for another one.
var _ = lsnproxy_runs_on_Linux_only
