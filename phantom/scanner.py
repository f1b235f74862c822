"""The built-in data: synthetic short-axis cine MRI of beating hearts, every sample another patient.

A patient (`anatomy`) is painted on a grid finer than the image. It moves with the heartbeat, a
breath and a slow drift, in the plane and through it, and the signal of blood and vessels varies.
Single frames come from another heartbeat, and blocks of frames from another breath-hold. Receive
coils shade the picture, and where the main field is off, dark bands cross it. The scanner samples
the centre of k-space, adds ghosts and complex noise, and returns the magnitude. The image is
therefore band-limited like a measured one, and comes from a finer model than any reconstruction
uses (no "inverse crime"). How scanners differ (which way the phase is encoded, resolution, filters
over time, clipped gray values) differs from patient to patient.

Conventions: the T frames cover one RR interval, or the larger part of it, from about end-diastole
on. Lengths are in mm.
All random numbers of a sample come from one generator, seeded by `(seed, sample)` alone.

References: Rician magnitude: H. Gudbjartsson and S. Patz, "The Rician distribution of noisy MRI
data", Magn Reson Med 34:910-914, 1995. Inverse crime: M. Guerquin-Kern et al., "Realistic
analytical phantoms for parallel magnetic resonance imaging", IEEE Trans Med Imaging 31:626-636,
2012.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from phantom.anatomy import Canvas, paint_anatomy
from phantom.heart import Heart, contraction
from util.random_streams import Stream, generator

SMALLEST = 32  # pixels along Y and X that still show a heart
FINER = 2  # points of the anatomy's grid per pixel, along each axis
TURNED = 0.25  # share of patients whose phase is encoded from left to right
BANDED = 0.6  # share with dark bands where the main field is off
BAND = 0.45  # half-width of a band, in radians of precession between two excitations
GHOSTS = 0.4  # share with ghosts of what moves
SMOOTHED = 0.25  # share whose frames are smoothed over time, as by sharing lines between them
NARROW = 0.4  # share with fewer lines than the image has, the rest filled with zeros
CLIPPED = 0.15  # share whose brightest gray values are clipped
CUT_SHORT = 0.6  # share whose frames end before the next heartbeat, as with a trigger
EXTRASYSTOLE = 0.2  # share with one or two frames from another heartbeat
BREATH_HOLDS = 0.4  # share with a block of frames from another breath-hold
INTERLEAVED = 0.6  # share whose frames alternate, with a period of
PERIODS = 2, 6  # frames
LOCAL_MOTIONS = 3  # smooth fields of motion around the heart, beside its own contraction
HARMONICS = 6  # of the heartbeat in the time course of a local motion
FLOW_JITTER = 0.1  # random change of flow-related signal between frames, relative to its pulse
NOISE_FLOOR = 38.5, 3.5  # dB below the peak, mean and spread over the patients


def phantom(
    n_samples: int, shape: Sequence[int] = (20, 192, 192), seed: int = 0, progress: bool = False
) -> np.ndarray:
    """Beating-heart cine of `n_samples` patients.

    Args:
        n_samples: number of patients, at least 0.
        shape: (T, Y, X), at least (1, 32, 32).
        seed: at least 0; another seed gives other patients. Sample i depends on `(seed, i, shape)`
            alone, so that a small phantom is the beginning of a large one.
        progress: show a bar on standard error, if that is a terminal.

    Returns:
        (B, T, Y, X) float32 in [0, 1]; the maximum of every sample is 1.

    Raises:
        ValueError: an argument is out of range.
    """
    n_frames, ny, nx = checked_shape(n_samples, shape, seed)
    samples = np.empty((n_samples, n_frames, ny, nx), dtype=np.float32)

    def scan(i: int) -> None:
        samples[i] = _patient(generator(Stream.PHANTOM, seed, i), n_frames, ny, nx)

    threads = torch.get_num_threads()
    # one thread for a patient: the same bits on every machine
    with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
        try:
            scans = pool.map(scan, range(n_samples))
            for _ in tqdm(scans, "phantom", n_samples, disable=None if progress else True):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # MKL's threads are those of the whole process
    return samples


def checked_shape(n_samples: int, shape: Sequence[int], seed: int) -> tuple[int, ...]:
    """`shape` as a tuple of ints; ValueError if an argument is out of range."""
    possible = len(shape) == 3 and shape[0] >= 1 and min(shape[1:]) >= SMALLEST
    if not possible or n_samples < 0 or seed < 0:
        raise ValueError(
            "the phantom needs n_samples >= 0, seed >= 0 and shape (T, Y, X) of at least"
            f" (1, {SMALLEST}, {SMALLEST}), got n_samples={n_samples}, shape={tuple(shape)},"
            f" seed={seed}"
        )
    return tuple(int(n) for n in shape)


@dataclass(frozen=True)
class _Patient:
    """A patient before the scan: the picture of the anatomy, and how it moves and changes."""

    heart: Heart
    canvas: Canvas
    shading: Tensor  # of the coils and of bands, (FINER Y, FINER X)
    phase: np.ndarray  # (T,) of the heartbeat
    layers: Tensor  # (L, FINER Y, FINER X) of signal that varies over time
    signal: Tensor  # (T, L) of each layer
    fields: Tensor  # (M, 2, Y, X) of motion along x and y, in mm at a displacement of 1
    displacement: Tensor  # (T, M) of each field


def _painted(rng: np.random.Generator, n_frames: int, ny: int, nx: int) -> _Patient:
    heart = Heart(rng)
    canvas = Canvas(rng, FINER * ny, FINER * nx)
    free = paint_anatomy(canvas, heart)
    shading = _coil_shading(canvas) * _bands(canvas)
    phase = _phase(rng, n_frames)

    signal = [_flow(rng, phase) for _ in canvas.flow]
    signal.append(rng.uniform(0.1, 0.5) * contraction(phase) ** rng.uniform(0.5, 2))
    layers = torch.stack([*canvas.flow, canvas.nearby])

    fields, displacement = _motions(rng, heart, canvas, phase, free)
    fields = F.interpolate(fields, (ny, nx), mode="bilinear", align_corners=True)
    return _Patient(heart, canvas, shading, phase, layers, _courses(signal), fields, displacement)


def _motions(
    rng: np.random.Generator, heart: Heart, canvas: Canvas, phase: np.ndarray, free: Tensor
) -> tuple[Tensor, Tensor]:
    """What moves beside the heart's contraction: fields (M, 2, FINER Y, FINER X) along x and y, and
    the displacement (T, M) of each in mm."""
    inside = torch.sigmoid((free - 6) / 7)  # chest wall and spine hardly move
    near = heart.surroundings(canvas.x, canvas.y)
    places = [(inside, 50.0), *((near, scale) for scale in rng.uniform(12, 40, LOCAL_MOTIONS))]
    fields = [place * torch.stack([canvas.field(s), canvas.field(s)]) for place, s in places]
    whole = torch.eye(2)[:, :, None, None].expand(-1, -1, *near.shape)  # all that is seen
    fields += whole.unbind()
    displacement = [_sway(rng, phase)]
    displacement += [_local_motion(rng, phase) for _ in range(LOCAL_MOTIONS)]
    displacement += [FINER * canvas.pixel * _misplaced(rng, len(phase)) for _ in range(2)]
    return torch.stack(fields), _courses(displacement)


def _courses(courses: Sequence[np.ndarray]) -> Tensor:
    """(T, N) float32 of N courses over time, (T,) each."""
    return torch.from_numpy(np.stack(courses, axis=1).astype(np.float32))


def _origins(patient: _Patient) -> Iterator[tuple[Tensor, Tensor]]:
    """For each frame, the position (x, y) in the picture of what is now at each pixel.

    Motion is smooth, so the grid of the image is fine enough for it.
    """
    coarse = patient.canvas.positions(FINER)
    moved = patient.heart.origins(*coarse, contraction(patient.phase))
    for displacement, (x, y) in zip(patient.displacement, moved, strict=True):
        along_x, along_y = torch.einsum("m,mdyx->dyx", displacement, patient.fields)
        yield x + along_x, y + along_y


def _patient(rng: np.random.Generator, n_frames: int, ny: int, nx: int) -> np.ndarray:
    """One sample, (T, Y, X) float32."""
    if rng.random() < TURNED:
        series = _series(rng, n_frames, nx, ny).transpose(1, 2)
    else:
        series = _series(rng, n_frames, ny, nx)
    return _scan(rng, series)


def _series(rng: np.random.Generator, n_frames: int, ny: int, nx: int) -> Tensor:
    """The images (T, Y, X) of a perfect scan."""
    patient = _painted(rng, n_frames, ny, nx)
    canvas = patient.canvas
    frames = []
    for signal, (x, y) in zip(patient.signal, _origins(patient), strict=True):
        frame = canvas.image + torch.einsum("l,lyx->yx", signal, patient.layers)
        frame = canvas.sample(frame, x, y)
        frames.append(_in_band(frame * patient.shading, ny, nx))
    return torch.stack(frames)


# Time courses, (T,) each.


def _phase(rng: np.random.Generator, n_frames: int) -> np.ndarray:
    """Phase of the heartbeat in every frame."""
    phase = np.arange(n_frames) / n_frames
    if rng.random() < CUT_SHORT:
        phase *= rng.uniform(0.75, 1)
    phase = (phase + rng.uniform(-0.05, 0.05)) % 1
    phase = phase ** rng.uniform(0.85, 1.2)  # a faster heart shortens diastole, not systole
    if rng.random() < EXTRASYSTOLE:
        others = rng.integers(n_frames, size=rng.integers(1, 3))
        phase[others] = (phase[others] + rng.normal(0, 0.1, len(others))) % 1
    return phase


def _flow(rng: np.random.Generator, phase: np.ndarray) -> np.ndarray:
    """Flow-related signal: a pulse of mean 0 at a random phase, with turbulence."""
    delay, width = rng.uniform(0, 1), rng.uniform(0.05, 0.16)
    since = (phase - delay + 0.5) % 1 - 0.5
    pulse = np.exp(-0.5 * (since / width) ** 2)
    return pulse - pulse.mean() + FLOW_JITTER * rng.standard_normal(len(phase))


def _sway(rng: np.random.Generator, phase: np.ndarray) -> np.ndarray:
    """Displacement in mm of the organs in the rib cage: heartbeat, a breath, and a slow drift."""
    beat = rng.lognormal(0.9, 0.6) * contraction(phase)
    breath = rng.normal(0, 1.6) * np.sin(math.pi * phase)
    drift = rng.normal(0, 0.5) * phase
    return beat + breath + drift + 0.05 * rng.standard_normal(len(phase))


def _local_motion(rng: np.random.Generator, phase: np.ndarray) -> np.ndarray:
    """Displacement in mm of tissue near the heart, beyond contraction."""
    harmonics = np.arange(1, HARMONICS + 1)
    waves = np.cos(2 * math.pi * (np.outer(phase, harmonics) + rng.random(HARMONICS)))
    motion = waves @ (rng.standard_normal(HARMONICS) / harmonics)
    return rng.lognormal(-1.6, 0.7) * motion + 0.03 * rng.standard_normal(len(phase))


def _misplaced(rng: np.random.Generator, n_frames: int) -> np.ndarray:
    """Displacement, in pixels, of whole frames along an axis."""
    shift = np.zeros(n_frames)
    if rng.random() < INTERLEAVED:
        period = rng.integers(*PERIODS, endpoint=True)
        shift += np.resize(rng.normal(0, 0.04, period), n_frames)
    if rng.random() < BREATH_HOLDS:
        first = rng.integers(n_frames)
        shift[first : first + rng.integers(1, n_frames, endpoint=True)] += rng.normal(0, 0.2)
    if rng.random() < EXTRASYSTOLE:
        shift[rng.integers(n_frames)] += rng.normal(0, 0.6)
    return shift


# The scanner.


def _coil_shading(canvas: Canvas) -> Tensor:
    """(Y, X) receive sensitivity: a constant plus three coils around the body."""
    rng = canvas.rng
    shading = torch.full_like(canvas.image, rng.uniform(0.9, 2.0))
    turn = rng.uniform(0, 2 * math.pi)
    for angle in (turn, turn + 2.1, turn + 4.2):
        x, y = canvas.x - 150 * math.cos(angle), canvas.y - 130 * math.sin(angle)
        distance = (x.square() + y.square()) / (2 * rng.uniform(40, 80) ** 2)
        shading += rng.lognormal(-0.7, 1) * torch.exp(-distance)
    return shading


def _bands(canvas: Canvas) -> Tensor:
    """(Y, X) share of the signal that is left: none where spins precess by half a turn between two
    excitations of steady-state free precession. The field is best around the heart."""
    rng = canvas.rng
    x, y = canvas.x / rng.uniform(110, 260), canvas.y / rng.uniform(110, 260)
    precession = math.pi * (x.square() + rng.uniform(-1, 1) * y.square())
    precession += rng.normal(0, 0.4) * canvas.field(60) + rng.normal(0, 0.5) * (x + y)
    off = torch.remainder(precession, 2 * math.pi) - math.pi  # 0 in the middle of a band
    depth = rng.uniform(0.5, 1) if rng.random() < BANDED else 0.0
    return 1 - depth * torch.exp(-(off / BAND).square())


def _in_band(image: Tensor, ny: int, nx: int) -> Tensor:
    """The image (ny, nx) of the k-space centre of a finer, real image (Y, X)."""
    kspace = torch.fft.rfft2(image, norm="forward")[:, : nx // 2 + 1]  # zero frequency first
    kspace = torch.cat([kspace[: (ny + 1) // 2], kspace[-(ny // 2) :]])
    return torch.fft.irfft2(kspace, (ny, nx), norm="forward")


def _scan(rng: np.random.Generator, image: Tensor) -> np.ndarray:
    """Noisy magnitude of images (T, Y, X), float32 of maximum 1."""
    n_frames, ny, nx = image.shape
    if rng.random() < SMOOTHED:
        image = _smoothed(image, rng.uniform(0.2, 0.5))
    if rng.random() < GHOSTS:  # what changes between excitations appears again along the lines
        moving = image - image.mean(dim=0)
        strength = torch.from_numpy(rng.normal(0, 0.05, (n_frames, 1, 1)).astype(np.float32))
        image = image + strength * moving.roll(int(rng.integers(ny)), 1)
    sigma = image.max() * 10 ** (-rng.normal(*NOISE_FLOOR) / 20)
    # Parallel imaging and the correction of the coils' shading amplify noise deep in the body.
    y, x = (torch.linspace(-1, 1, n) for n in (ny, nx))
    sigma = sigma * (0.15 + 1.1 * torch.exp(-(y[:, None].square() + x.square()) / 0.8**2))
    noise = torch.from_numpy(rng.standard_normal((n_frames, ny, nx, 2), dtype=np.float32))
    noise *= sigma[..., None]
    noisy = image + torch.view_as_complex(noise)
    y, x = (2 * torch.fft.fftfreq(n) for n in (ny, nx))
    passed = torch.ones(ny, nx)
    if rng.random() < 0.45:  # some scanners do not sample the corners of k-space
        passed *= torch.sigmoid((rng.uniform(0.95, 1.02) - torch.hypot(y[:, None], x)) / 0.02)
    if rng.random() < NARROW:
        passed *= torch.sigmoid((rng.uniform(0.8, 1.0) - y[:, None].abs()) / rng.uniform(0.03, 0.1))
    image = torch.fft.ifft2(torch.fft.fft2(noisy) * passed).abs()
    if rng.random() < 0.08:  # a narrow field of view, padded with zeros to the square
        pad = int(rng.uniform(0.04, 0.12) * nx)
        image[..., :pad] = image[..., nx - pad :] = 0
    if rng.random() < CLIPPED:
        image = image.clamp(max=rng.uniform(0.6, 0.95) * image.max())
    return (image / image.max()).numpy()


def _smoothed(image: Tensor, width: float) -> Tensor:
    """Frames (T, Y, X), cyclic, smoothed by a Gaussian of this standard deviation in frames."""
    frequency = torch.fft.rfftfreq(len(image))
    gain = torch.exp(-2 * (math.pi * width * frequency).square())
    spectrum = torch.fft.rfft(image, dim=0) * gain[:, None, None]
    return torch.fft.irfft(spectrum, n=len(image), dim=0)
