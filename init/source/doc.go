// Package source finds user-data, vendor-data, meta-data and network-config.
//
// It looks at, in rising precedence: the files of the ESP below /keelson, the
// metadata of the cloud that SMBIOS names, VMware's guestinfo, volumes labelled
// cidata (NoCloud, vfat or iso9660) or config-2 (ConfigDrive) and the CD of
// Azure or VMware, QEMU's fw_cfg
// (opt/keelson/NAME), keelson.user-data= on the kernel command line, and the
// addresses that SMBIOS, a volume or the command line name (ds=nocloud;s=URL,
// seedfrom, cloud-config-url=). No cloud is asked but the one that the machine
// is in, and that one only where no user-data is attached to the machine. Every
// file is optional and bounded in size; a source over the network is asked again
// for a bounded time. Where none of them gives anything, the
// copy that Store kept on STATE is used. Package source never interprets a
// document: userdata.Load and netconfig.Load do.
//
//	docs, err := source.Collect(ctx, source.Config{
//		Cmdline: cmdline, ESP: "/dev/vda2", FwCfg: source.DefaultFwCfg, LoadModule: modules.Load,
//		Stored: layout.UserData, Settle: 3 * time.Second, NextDevice: blockEvents,
//	})
//	... userdata.Load(docs) without a fatal problem ...
//	err = source.Store(layout.UserData, docs)
//
// After a refusal, a block device that appears or changes its medium makes
// Collect worth another try.
package source
