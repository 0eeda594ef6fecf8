package clock

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// machine is the real System.
type machine struct{ rtc string }

func (machine) Now() time.Time { return time.Now() }

func (machine) Step(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set system clock: %w", err)
	}
	return nil
}

// Slew hands the offset to the kernel's clock discipline, which also copies the
// time to some hardware clocks by itself once it is told to be in sync.
func (machine) Slew(offset time.Duration) error {
	tx := unix.Timex{
		Modes:    unix.ADJ_OFFSET | unix.ADJ_NANO | unix.ADJ_STATUS | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR | unix.ADJ_TIMECONST,
		Status:   unix.STA_PLL,
		Constant: 6,
		Offset:   offset.Nanoseconds(),
	}
	if _, err := unix.Adjtimex(&tx); err != nil {
		return fmt.Errorf("slew system clock by %s: %w", offset, err)
	}
	return nil
}

func (m machine) ReadRTC() (time.Time, error) {
	f, err := os.Open(m.rtc)
	if err != nil {
		return time.Time{}, fmt.Errorf("hardware clock: %w", err)
	}
	defer f.Close()
	v, err := unix.IoctlGetRTCTime(int(f.Fd()))
	if err != nil {
		return time.Time{}, fmt.Errorf("read hardware clock: %w", err)
	}
	return fromRTC(v), nil
}

func (m machine) WriteRTC(t time.Time) error {
	f, err := os.Open(m.rtc)
	if err != nil {
		return fmt.Errorf("hardware clock: %w", err)
	}
	defer f.Close()
	v := toRTC(t)
	if err := unix.IoctlSetRTCTime(int(f.Fd()), &v); err != nil {
		return fmt.Errorf("write hardware clock: %w", err)
	}
	return nil
}

// fromRTC and toRTC convert struct rtc_time (rtc(4)): the form of gmtime.
func fromRTC(v *unix.RTCTime) time.Time {
	return time.Date(int(v.Year)+1900, time.Month(v.Mon+1), int(v.Mday), int(v.Hour), int(v.Min), int(v.Sec), 0, time.UTC)
}

func toRTC(t time.Time) unix.RTCTime {
	t = t.UTC()
	return unix.RTCTime{Year: int32(t.Year() - 1900), Mon: int32(t.Month() - 1), Mday: int32(t.Day()),
		Hour: int32(t.Hour()), Min: int32(t.Minute()), Sec: int32(t.Second()), Wday: int32(t.Weekday()), Yday: int32(t.YearDay() - 1)}
}
