// Package clock gives the machine a time that never runs before its image was
// built, without ever waiting for a network.
//
// EnsureFloor is called early in the boot, and again once STATE is mounted: it
// reads the hardware clock and steps the system clock forward to the newest of
// the clock, the build time of the image and the last time known. Run asks NTP
// servers (SNTP, RFC 4330), steps or slews the system clock, writes the
// hardware clock and the last known time, until its context ends.
//
//	c, err := clock.New(clock.Config{Epoch: epoch, Logger: log})
//	err = c.EnsureFloor()
//	...
//	c, err = clock.New(clock.Config{Epoch: epoch, LastKnown: layout.LastTime,
//		Servers: func() []string { return append(cfg.NTP.Servers, net.Status().NTP...) }, Logger: log})
//	err = c.EnsureFloor(); go supervise(c.Run)
package clock
