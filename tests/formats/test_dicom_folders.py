import numpy as np
import pytest
from helpers import make_images
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
    next(p for p in (tmp_path / "scan").iterdir() if dicom_of(p).TriggerTime == 120).unlink()
    series = next(iter(read_scan(tmp_path / "scan")))
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


def test_truncated_pixels(folder):
    path = folder / "IM0003"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"IM0003 .*copy it again"):
        list(read_scan(folder))


def test_written_series_are_new_derived_and_where_the_old_ones_were(folder, tmp_path):
    scan = read_scan(folder)
    made = {s.name: s.values * 0.9 + 3 for s in scan}
    assert write_like(scan, made, tmp_path) == ["dicom"]
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


def test_compressed_syntax_without_a_decoder_is_explained(folder, monkeypatch):
    path = folder / "IM0003"
    header = dicom_of(path)
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"  # JPEG 2000
    header.PixelData = (
        b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0abcd\xfe\xff\xdd\xe0\0\0\0\0"
    )
    header["PixelData"].is_undefined_length = True
    header.save_as(path)
    with pytest.raises(InputError, match=r"pixels that cannot be read .*export uncompressed files"):
        list(read_scan(folder))
