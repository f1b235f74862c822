import re

import numpy as np
import pydicom
import pytest
from helpers import make_images
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian
from scans import SLOPE, dicom_of, write_dicom, write_dicom_folder

from formats.reading import read_scan
from formats.writing import write_like
from util.errors import InputError

SLICES = np.round(make_images(2) * 2000).astype(np.uint16)  # (2, 8, 32, 36)


@pytest.fixture
def folder(tmp_path):
    write_dicom_folder(tmp_path / "scan", SLICES)
    return tmp_path / "scan"


def test_shuffled_slices_are_sorted_by_position_and_trigger_time(folder):
    scan = read_scan(folder)
    series = list(scan)
    assert scan.names == ["series_7_slice_01", "series_7_slice_02"]
    np.testing.assert_array_equal(np.stack([s.values for s in series]), SLICES * SLOPE)
    assert series[0].patient == "4711"
    assert scan.notes == [note for s in series for note in s.notes] == []
    assert "Jane" not in repr((scan.names, scan.notes, [s.notes for s in series]))


def test_a_subfolder_for_each_series(tmp_path):
    (tmp_path / "study").mkdir()
    write_dicom_folder(tmp_path / "study" / "b", SLICES[:1], SeriesInstanceUID="1.2.3.5")
    write_dicom_folder(
        tmp_path / "study" / "a", SLICES[1:], SeriesInstanceUID="1.2.3.6", SeriesNumber=2
    )
    (tmp_path / "study" / "readme.txt").write_text("not DICOM")
    scan = read_scan(tmp_path / "study")
    assert scan.names == ["series_2_slice_01", "series_7_slice_01"]
    np.testing.assert_array_equal(next(iter(scan)).values, SLICES[1] * SLOPE)


def test_phase_encoding_along_the_rows(tmp_path):
    write_dicom_folder(tmp_path / "scan", SLICES[:1], InPlanePhaseEncodingDirection="ROW")
    scan = read_scan(tmp_path / "scan")
    series = next(iter(scan))
    np.testing.assert_array_equal(series.values, SLICES[0].swapaxes(1, 2) * SLOPE)
    assert series.notes == ["phase encoding runs along the rows: Y and X are exchanged"]
    write_like(scan, {series.name: series.values}, tmp_path)
    written = next(iter(read_scan(tmp_path / "dicom")))
    np.testing.assert_allclose(written.values, series.values, atol=0.02)


def test_what_is_no_cine_is_left_out_and_noted(folder):
    image = SLICES[0, 0]
    write_dicom(folder / "ct", image, Modality="CT")
    write_dicom(folder / "scout", image, SeriesInstanceUID="1.2.9")
    write_dicom(folder / "colour", image, SamplesPerPixel=3)
    write_dicom(folder / "phase", image, ImageType=["ORIGINAL", "PRIMARY", "P"])
    (folder / "damaged").write_bytes((folder / "ct").read_bytes()[:200])
    (folder / "again").write_bytes((folder / "IM0000").read_bytes())
    scan = read_scan(folder)
    assert len(scan) == 2
    notes = " | ".join(scan.notes)
    for text in (
        "1 of 22 files of modality CT",
        "in colour",
        "of phase or of real",
        "damaged",
        "that repeat another",
        "1 slice positions with a single image",
    ):
        assert text in notes, text


def test_half_a_series(folder):
    for path in sorted(folder.iterdir()):
        header = dicom_of(path)
        if header.ImagePositionPatient[2] > 0 and header.TriggerTime > 200:
            path.unlink()
    scan = read_scan(folder)
    assert scan.names == ["series_7_slice_01"]
    assert "with 6 images, where others of the series have 8," in scan.notes[0]


def test_a_missing_frame_is_noticed(tmp_path):
    write_dicom_folder(tmp_path / "scan", SLICES[:1])
    assert next(iter(read_scan(tmp_path / "scan"))).frame_time == 40
    next(p for p in (tmp_path / "scan").iterdir() if dicom_of(p).TriggerTime == 120).unlink()
    series = next(iter(read_scan(tmp_path / "scan")))
    assert series.frame_time is None
    assert "trigger times are uneven (steps of 40 to 80 ms)" in series.notes[0]


def test_without_trigger_times_the_instance_number_counts(tmp_path):
    (tmp_path / "scan").mkdir()
    for t, image in enumerate(SLICES[0]):
        write_dicom(
            tmp_path / "scan" / f"{-t % 8}.dcm", image, InstanceNumber=t + 1, RescaleSlope=None
        )
    series = next(iter(read_scan(tmp_path / "scan")))
    np.testing.assert_array_equal(series.values, SLICES[0])
    assert "sorted by InstanceNumber" in series.notes[0]


def test_no_cine_at_all(tmp_path):
    write_dicom(tmp_path / "a.dcm", SLICES[0, 0])
    for path in (tmp_path, tmp_path / "a.dcm"):
        with pytest.raises(InputError, match="holds no cine: 1 slice positions with a single im"):
            read_scan(path)
    with pytest.raises(InputError, match="is DICOM, whose headers name the axes"):
        read_scan(tmp_path, "x y t")


def test_one_truncated_file_costs_one_file(tmp_path):
    write_dicom_folder(tmp_path / "scan", SLICES[:1])
    path = tmp_path / "scan" / "IM0003"
    path.write_bytes(path.read_bytes()[:-100])
    scan = read_scan(tmp_path / "scan")
    assert len(next(iter(scan)).values) == 7
    assert scan.notes == ["1 of 8 files that are truncated (copy them again) are left out"]


def test_written_series_are_new_derived_and_where_the_old_ones_were(folder, tmp_path):
    scan = read_scan(folder)
    made = {s.name: s.values * 0.9 + 3 for s in scan}
    assert write_like(scan, made, tmp_path) == ["dicom"]
    assert (tmp_path / "dicom").stat().st_mode & 0o077 == 0  # for the user alone
    again = read_scan(tmp_path / "dicom")
    assert again.names == ["series_1007_slice_01", "series_1007_slice_02"]
    for new, old in zip(again, made.values(), strict=True):
        np.testing.assert_allclose(new.values, old, atol=old.max() / 2**16)
    sources = {dicom_of(p).SOPInstanceUID: dicom_of(p) for p in folder.iterdir()}
    uids = set()
    for path in (tmp_path / "dicom").rglob("*.dcm"):
        header = dicom_of(path)
        source = sources[header.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert header.ImageType == ["DERIVED", "SECONDARY", "M"]
        assert header.DerivationDescription
        assert header.SOPInstanceUID not in sources
        assert header.SeriesInstanceUID != source.SeriesInstanceUID
        assert header.StudyInstanceUID == source.StudyInstanceUID
        assert header.PatientID == source.PatientID
        assert header.ImagePositionPatient == source.ImagePositionPatient
        assert header.TriggerTime == source.TriggerTime
        assert header.PixelSpacing == source.PixelSpacing
        uids.add(header.SOPInstanceUID)
    assert len(uids) == 16
    with pytest.raises(InputError, match="dicom exists and is not overwritten"):
        write_like(scan, made, tmp_path)


@pytest.mark.parametrize("n_compressed", [1, 8])
def test_compressed_syntax_without_a_decoder_is_explained(tmp_path, n_compressed):
    write_dicom_folder(tmp_path / "scan", SLICES[:1])
    for path in sorted((tmp_path / "scan").iterdir())[:n_compressed]:
        header = dicom_of(path)
        header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"  # JPEG 2000
        header.PixelData = (
            b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0abcd\xfe\xff\xdd\xe0\0\0\0\0"
        )
        header["PixelData"].is_undefined_length = True
        header.save_as(path)
    scan = read_scan(tmp_path / "scan")
    text = "pixels that cannot be read .*export uncompressed files"
    if n_compressed == 8:
        with pytest.raises(InputError, match=text):
            list(scan)
        return
    series = next(iter(scan))
    assert len(series.values) == 7
    assert re.search(f"1 of 8 images are left out: .*{text}", series.notes[0])
    assert write_like(scan, {series.name: series.values}, tmp_path) == ["dicom"]


def save_frames(folder, slices=SLICES[:1], change=lambda s, t: {}, spoil=None):
    """Files of slices (S, T, Y, X), with tags that `change` gives, and values (keyword, type,
    bytes) as they are in the file that `spoil` gives."""
    folder.mkdir()
    for s, t in np.ndindex(slices.shape[:2]):
        path = folder / f"{s}_{t}"
        usual: dict = {"ImagePositionPatient": [0, 0, 8.0 * s], "TriggerTime": 40.0 * t}
        number = {"InstanceNumber": s * slices.shape[1] + t + 1}
        tags = usual | number | change(s, t)
        tags = {k: v for k, v in tags.items() if v is not None}
        write_dicom(path, slices[s, t], **tags)
        for keyword, kind, value in spoil(t) if spoil else []:
            header, tag = dicom_of(path), tag_for_keyword(keyword)
            raw = RawDataElement(Tag(tag), kind, len(value), value, 0, False, True)
            header._dict[Tag(tag)] = raw
            header.save_as(path)
    return read_scan(folder)


@pytest.mark.parametrize("same_number", [True, False])
def test_a_scout_stays_apart_from_a_series_for_each_image(tmp_path, same_number):
    numbers = (lambda s, t: 7) if same_number else (lambda s, t: 8 * s + t)
    change = lambda s, t: {"SeriesInstanceUID": f"1.{s}.{t}", "SeriesNumber": numbers(s, t)}  # noqa: E731
    save_frames(tmp_path / "scan", SLICES, change)
    scout = {"SeriesInstanceUID": "1.9", "SeriesNumber": 7 if same_number else 99}
    write_dicom(tmp_path / "scan" / "scout", SLICES[0, 0], ImagePositionPatient=[0, 0, 4], **scout)
    scan = read_scan(tmp_path / "scan")
    np.testing.assert_array_equal(np.stack([s.values for s in scan]), SLICES * SLOPE)
    assert "1 slice positions with a single image are left out" in scan.notes


ANGLES = np.deg2rad([[40 * s + 0.2 * t for t in range(8)] for s in range(2)])


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda s, t: {"ImagePositionPatient": [0, 0, 8 * s + (10.05001, 10.04999)[t % 2]]}, None),
        (
            lambda s, t: {"ImagePositionPatient": [0, 0, 8 * s + 0.05 * t]},
            "the positions of its images differ by up to 0.35 mm",
        ),
        (lambda s, t: {"ImagePositionPatient": [0, 0, 0.4 * s]}, None),
        (
            lambda s, t: {
                "ImageOrientationPatient": [
                    *np.round([np.cos(ANGLES[s, t]), np.sin(ANGLES[s, t]), 0, 0, 0], 6).tolist(),
                    -1,
                ],
                "ImagePositionPatient": [0, 0, 0],
            },
            None,
        ),
        (lambda s, t: {"SeriesInstanceUID": f"1.2.{s}.{t}"}, "16 DICOM series of single images"),
        (
            lambda s, t: {"SeriesInstanceUID": f"1.2.{s}.{t}", "SeriesNumber": 8 * s + t},
            "16 DICOM series of single images",
        ),
        (lambda s, t: {"SOPInstanceUID": "1.2.3"}, None),
        (lambda s, t: {"SeriesInstanceUID": "", "PatientID": str(s)}, None),
        (lambda s, t: {"TriggerTime": 0}, "all trigger times are 0: frames are sorted by Instance"),
        (
            lambda s, t: {"TriggerTime": 0, "InstanceNumber": 1, "AcquisitionTime": f"12000{t}.5"},
            "all trigger times are 0: frames are sorted by AcquisitionTime",
        ),
    ],
)
def test_images_are_grouped_by_comparison(tmp_path, change, note):
    scan = save_frames(tmp_path / "scan", SLICES, change)
    series = list(scan)
    np.testing.assert_array_equal(np.stack([s.values for s in series]), SLICES * SLOPE)
    found = " ".join(scan.notes + [text for s in series for text in s.notes])
    assert note in found if note else found == ""


@pytest.mark.parametrize(
    ("change", "told_by"),
    [
        (lambda s, t: {"AcquisitionNumber": s + 1}, "AcquisitionNumber"),
        (lambda s, t: {"AcquisitionNumber": s + 1, "TriggerTime": None}, "AcquisitionNumber"),
        (lambda s, t: {"AcquisitionNumber": s, "TriggerTime": (40 + s) * t}, "AcquisitionNumber"),
        (lambda s, t: {"EchoTime": 1.2 + s}, "EchoTime"),
        (lambda s, t: {}, "their order"),
        (lambda s, t: {"InstanceNumber": 2 * t + s}, "their order"),
        (lambda s, t: {"InstanceNumber": 1, "AcquisitionTime": f"12{s:02d}{t:02d}"}, "their order"),
        (lambda s, t: {"TriggerTime": 5 + s + 40.3 * t}, "their order"),
    ],
)
def test_two_beats_at_a_place_are_two_acquisitions(tmp_path, change, told_by):
    at = {"ImagePositionPatient": [0, 0, 0]}
    series = list(save_frames(tmp_path / "scan", SLICES, lambda s, t: at | change(s, t)))
    np.testing.assert_array_equal(np.stack([s.values for s in series]), SLICES * SLOPE)
    assert series[1].name == "series_7_slice_01_acquisition_2"
    assert f"2 acquisitions, told apart by {told_by}" in series[1].notes[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"AcquisitionNumber": t},
        lambda t: {"AcquisitionNumber": t // 4},
        lambda t: {"InstanceNumber": (t + 4) % 8},
    ],
)
def test_one_beat_is_one_acquisition(tmp_path, change):
    (series,) = save_frames(tmp_path / "scan", change=lambda s, t: change(t))
    np.testing.assert_array_equal(series.values, SLICES[0] * SLOPE)
    assert series.name == "series_7_slice_01"


PHASE = np.random.default_rng(0).integers(0, 4096, SLICES[:1].shape, dtype=np.uint16)
MASKED = np.where(SLICES[:1] > 800, SLICES[:1], 2048).astype(np.uint16)


@pytest.mark.parametrize(
    ("phase", "tags", "private"),
    [
        (PHASE, {"ComplexImageComponent": "PHASE"}, None),
        (PHASE, {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP"]}, None),
        (PHASE, {}, (0x0043, "GEMS_PARM_01", 0x2F, "SS", 1)),
        (PHASE, {}, (0x2005, "Philips MR Imaging DD 001", 0x11, "CS", "P")),
        (PHASE, {}, None),
        (MASKED, {}, None),
        (PHASE, {"RescaleIntercept": -1024}, None),
    ],
)
def test_phase_images_are_left_out(tmp_path, phase, tags, private):
    change = lambda s, t: {"ImagePositionPatient": [0, 0, 0]} | (tags if s else {})  # noqa: E731
    both = np.concatenate([SLICES[:1], phase])
    save_frames(tmp_path / "scan", both, change)
    for path in (tmp_path / "scan").glob("1_*") if private else []:
        group, creator, element, kind, value = private
        header = dicom_of(path)
        header.private_block(group, creator, create=True).add_new(element, kind, value)
        header.save_as(path)
    scan = read_scan(tmp_path / "scan")
    (series,) = scan
    np.testing.assert_array_equal(series.values, SLICES[0] * SLOPE)
    measured = not tags.keys() - {"RescaleIntercept"} and not private
    assert ("values are those of phase" if measured else "of phase or of real") in scan.notes[0]
    assert not series.not_a_scan


@pytest.mark.parametrize(
    ("keyword", "kind", "value", "n_bad", "n_frames", "note"),
    [
        ("TriggerTime", "DS", b"0,5 ", 8, 8, "time of 8 of 8 images cannot be read: frames are so"),
        ("TriggerTime", "DS", b"1\\2 ", 1, 8, "time of 1 of 8 images cannot be read"),
        ("ImagePositionPatient", "DS", b"a\\b\\c ", 8, 8, "the position of the slice is not given"),
        ("ImagePositionPatient", "DS", b"1\\2 ", 1, 7, "1 images without a position are left out"),
        ("ImageOrientationPatient", "DS", b"nan\\0\\0\\0\\1\\0 ", 8, 8, "part of their position"),
        ("ImageOrientationPatient", "DS", b"0\\0\\0\\0\\0\\0 ", 8, 8, "part of their position"),
        ("RescaleSlope", "DS", b"n/a ", 1, 7, "1 of 8 files whose RescaleSlope is not a number"),
        ("Rows", "US", b"", 1, 7, "1 of 8 files without an image"),
        ("InstanceNumber", "IS", b"1.5 ", 8, 8, None),
        ("NumberOfFrames", "IS", b"x ", 8, 8, None),
        ("SeriesNumber", "IS", b"x ", 8, 8, None),
        ("PixelSpacing", "DS", b"1,5\\1 ", 8, 8, None),
        ("AcquisitionMatrix", "US", b"\1\0", 8, 8, None),
        ("StudyDate", "DA", b"2024-99 ", 8, 8, None),
    ],
)
def test_values_that_cannot_be_read(tmp_path, keyword, kind, value, n_bad, n_frames, note):
    spoil = lambda t: [(keyword, kind, value)] if 2 <= t < 2 + n_bad or n_bad == 8 else []  # noqa: E731
    scan = save_frames(tmp_path / "scan", spoil=spoil)
    (series,) = scan
    kept = [t for t in range(8) if n_frames == 8 or t != 2]
    np.testing.assert_array_equal(series.values, SLICES[0, kept] * SLOPE)
    assert note is None or note in " ".join([*scan.notes, *series.notes])
    write_like(scan, {series.name: series.values}, tmp_path)
    (written,) = read_scan(tmp_path / "dicom")
    np.testing.assert_allclose(written.values, series.values, atol=0.02)
    assert written.not_a_scan == "a reconstruction by this suite"


@pytest.mark.parametrize(
    ("order", "implicit", "bare"),
    [("<", True, True), ("<", False, True), (">", False, True), (">", False, False)],
)
def test_other_encodings_are_read_and_written(tmp_path, order, implicit, bare):
    save_frames(tmp_path / "scan")
    for path, image in zip(sorted((tmp_path / "scan").iterdir()), SLICES[0], strict=True):
        header = pydicom.Dataset(dicom_of(path))
        header["PixelData"].value = image.astype(f"{order}u2").tobytes()
        if bare:
            pydicom.dcmwrite(path, header, implicit_vr=implicit, little_endian=order == "<")
        else:
            header.file_meta = pydicom.dataset.FileMetaDataset()
            header.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
            header.save_as(path, enforce_file_format=True)
    scan = read_scan(tmp_path / "scan")
    (series,) = scan
    np.testing.assert_array_equal(series.values, SLICES[0] * SLOPE)
    write_like(scan, {series.name: series.values}, tmp_path)
    written = [dicom_of(path) for path in (tmp_path / "dicom").rglob("*.dcm")]
    assert {str(w.file_meta.TransferSyntaxUID) for w in written} == {ExplicitVRLittleEndian}
    assert {tuple(w.PixelSpacing) for w in written} == {(1.4, 1.4)}
    (again,) = read_scan(tmp_path / "dicom")
    np.testing.assert_allclose(again.values, series.values, atol=0.02)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "M"]}, "derived from other images"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a screen capture"),
    ],
)
def test_images_made_from_others_are_read_with_a_reason(tmp_path, tags, reason):
    (series,) = save_frames(tmp_path / "scan", change=lambda s, t: tags)
    assert series.not_a_scan.startswith(reason)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "are mosaics of slices"),
        (
            {"NumberOfFrames": 2, "PixelData": 2 * SLICES[0, 0].tobytes()},
            "several frames without their positions or times",
        ),
        ({"TriggerTime": 16}, "are all of one trigger time"),
    ],
)
def test_images_of_no_known_time_or_place_are_refused(tmp_path, tags, reason):
    with pytest.raises(InputError, match=f"holds no cine: .* {reason}"):
        save_frames(tmp_path / "scan", change=lambda s, t: tags)


def test_a_dicomdir_is_left_out_and_refused_alone(folder):
    header = pydicom.Dataset()
    header.FileSetID = "CD"
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.save_as(folder / "DICOMDIR", enforce_file_format=True)
    scan = read_scan(folder)
    assert len(scan) == 2
    assert scan.notes == ["1 of 17 files that list others (DICOMDIR) are left out"]
    with pytest.raises(InputError, match=r"is a DICOMDIR, .*: name their folder"):
        read_scan(folder / "DICOMDIR")


@pytest.mark.parametrize(("percent", "reach"), [(80, 20), (50, None), (100, 16)])
def test_lines_of_a_smaller_field_of_view_reach_farther(tmp_path, percent, reach):
    tags = {"AcquisitionMatrix": [0, 36, 16, 0], "PercentPhaseFieldOfView": percent}
    images = SLICES[:1, :, :, :32]
    (series,) = save_frames(tmp_path / "scan", images, lambda s, t: tags)
    assert series.n_acquired == reach
    assert ("over the middle 20 of k-space" in " ".join(series.notes)) == (reach == 20)


@pytest.mark.parametrize("stated", [24, None])
def test_interpolated_lines_are_noted(tmp_path, stated):
    """K-space of 24 of 32 lines, as the header has it or as it is measured."""
    kspace = np.fft.fftshift(np.fft.fft(SLICES[:1].astype(float), axis=2), axes=2)
    kspace[:, :, :4] = kspace[:, :, 28:] = 0
    images = np.abs(np.fft.ifft(np.fft.ifftshift(kspace, axes=2), axis=2))
    tags = {"AcquisitionMatrix": [0, 36, 24, 0]} if stated else {}
    (series,) = save_frames(tmp_path / "scan", images.astype(np.uint16), lambda s, t: tags)
    assert series.n_acquired == 24
    assert "the scanner measured 24 of 32 lines, as its " in series.notes[-1]


def enhanced(slices, direction):
    """Tags of a file of all images (S, T, Y, X), and of as many phase images after them."""
    n_slices, n_frames = slices.shape[:2]
    in_groups = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing",
                 "InPlanePhaseEncodingDirection", "RescaleSlope", "RescaleIntercept")  # fmt: skip

    def group(**values):
        item = pydicom.Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return [item]

    shared = group(
        PixelMeasuresSequence=group(PixelSpacing=[2.8, 1.4]),
        PlaneOrientationSequence=group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        MRFOVGeometrySequence=group(InPlanePhaseEncodingDirection=direction),
    )
    frames, pixels = [], []
    for part in ("MAGNITUDE", "PHASE"):
        for t, s in np.ndindex(n_frames, n_slices):
            frames += group(
                PlanePositionSequence=group(ImagePositionPatient=[0, 0, 8.0 * s]),
                CardiacSynchronizationSequence=group(NominalCardiacTriggerDelayTime=40.0 * t),
                MRImageFrameTypeSequence=group(ComplexImageComponent=part),
                PixelValueTransformationSequence=group(RescaleSlope=s + 1, RescaleIntercept=0),
            )
            pixels.append(slices[s, t])
    return dict.fromkeys(in_groups) | {
        "SharedFunctionalGroupsSequence": shared,
        "PerFrameFunctionalGroupsSequence": frames,
        "NumberOfFrames": len(frames),
        "PixelData": np.stack(pixels).astype("<u2").tobytes(),
    }


@pytest.mark.parametrize("direction", ["ROW", "COLUMN"])
def test_an_enhanced_file_becomes_one_again(tmp_path, direction):
    tags = enhanced(SLICES, direction)
    (tmp_path / "scan").mkdir()
    write_dicom(tmp_path / "scan" / "a.dcm", SLICES[0, 0], **tags)
    scan = read_scan(tmp_path / "scan" / "a.dcm")
    series = list(scan)
    expected = SLICES * np.array([1, 2]).reshape(2, 1, 1, 1)
    is_turned = direction == "ROW"
    expected = expected.swapaxes(2, 3) if is_turned else expected
    np.testing.assert_array_equal(np.stack([s.values for s in series]), expected)
    assert "16 of 32 frames of a file of phase" in scan.notes[0]
    assert series[0].spacing == ((1.4, 2.8) if is_turned else (2.8, 1.4))
    write_like(scan, {s.name: s.values for s in series}, tmp_path)
    (path,) = (tmp_path / "dicom").rglob("*.dcm")
    written = list(read_scan(path))
    for new, old in zip(written, series, strict=True):
        np.testing.assert_allclose(new.values, old.values, atol=0.05)
        assert (new.spacing, new.is_turned) == (old.spacing, old.is_turned)
    header = dicom_of(path)
    frames = header.PerFrameFunctionalGroupsSequence
    assert header.NumberOfFrames == len(frames) == 16
    places = [f.PlanePositionSequence[0].ImagePositionPatient[2] for f in frames]
    assert places == [0] * 8 + [8] * 8
