"""Which recordings have a pitch that can be asked about."""

from __future__ import annotations

from ..modeling.recordings_audiobert import Recording

# Of a recording's length. Of 240 recordings of instruments whose note is known, 9 of 10 are voiced for more; a pitch
# tracker finds a pitch in one of three noises too (a truck, a bell's hum), half of the time for less.
VOICED = 0.75


def clear_pitch(recording: Recording) -> float | None:
    """
    The pitch of a recording in Hz, None if it has none or none that is plain to hear: one that was measured, or noted
    by the source, where a pitch is heard for less than three quarters of the recording. How long it is heard counts
    where the knowledge base knows it.
    """
    voiced = recording.voiced_seconds
    if recording.pitch_hz is None or (voiced is not None and voiced < VOICED * recording.seconds):
        return None
    return recording.pitch_hz
