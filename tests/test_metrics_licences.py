"""Whose the real images are: ledger, REUSE files, XMP and EXIF; and what licences allow."""

import io
import json
import shutil

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from metrics.errors import InputError
from metrics.image_sets import spdx
from metrics.image_sets.decode import sha256
from metrics.image_sets.ledger import check_allowed, ledger_rows, licences, restricted, write_ledger
from metrics.image_sets.open import open_images
from metrics.image_sets.rights import embedded, of_reuse, of_sidecar

BY = "https://creativecommons.org/licenses/by/4.0/"


def packet(inner, attributes=""):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {attributes}>{inner}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def with_xmp(image, format, xmp):
    data = io.BytesIO()
    if format == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        Image.fromarray(image).save(data, format, pnginfo=info)
    else:
        tag = {"tiffinfo": {700: xmp}} if format == "TIFF" else {"xmp": xmp}
        Image.fromarray(image).save(data, format, **tag)
    return data.getvalue()


def with_exif(image, format="JPEG", **texts):
    exif = Image.Exif()
    exif.update({{"copyright": 0x8298, "artist": 0x013B}[name]: text for name, text in texts.items()})
    data = io.BytesIO()
    Image.fromarray(image).save(data, format, exif=exif)
    return data.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BY, "CC-BY-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/2.0/deed.de", "CC-BY-NC-SA-2.0"),
        ("HTTPS://CreativeCommons.org/Licenses/BY/3.0", "CC-BY-3.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("https://creativecommons.org.evil.example/licenses/by/4.0/", None),
        ("https://creativecommons.org/licenses/by/9.9/", None),
        ("https://creativecommons.org/publicdomain/none/1.0/", None),
        ("no: https://creativecommons.org/licenses/by/4.0/", None),
    ],
)
def test_addresses_of_creative_commons(text, expected):
    assert spdx.of_deed(text) == expected


@pytest.mark.parametrize(
    ("expression", "allowed", "expected"),
    [
        ("CC-BY-4.0", ["cc-by-4.0"], True),
        ("cc0-1.0", ["CC0-1.0"], True),
        ("CC-BY-4.0 OR MIT", ["MIT"], True),
        ("CC-BY-4.0 AND MIT", ["MIT"], False),
        ("CC-BY-4.0 AND MIT", ["MIT", "CC-BY-4.0"], True),
        ("CC-BY-SA-4.0 OR (CC-BY-4.0 AND MIT)", ["MIT", "CC-BY-4.0"], True),
        ("(CC-BY-SA-4.0 OR CC-BY-4.0) AND MIT", ["CC-BY-4.0"], False),
        ("MIT OR CC-BY-SA-4.0 AND CC-BY-4.0", ["MIT"], True),  # AND binds closer
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["GPL-2.0-only"], True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["MIT"], False),
        ("CC-BY-SA-4.0", ["CC-BY-4.0"], False),
        ("licensed by nobody", ["MIT"], False),
        ("", ["MIT"], False),
    ],
)
def test_what_an_expression_lets_do(expression, allowed, expected):
    assert spdx.satisfied(expression, spdx.names(allowed)) is expected


def test_licences_that_spdx_does_not_know_are_refused():
    with pytest.raises(InputError, match=r"unknown licence 'CC-BY-4'\. Did you mean 'CC-BY-4\.0'"):
        spdx.names(["CC0-1.0", "CC-BY-4"])
    with pytest.raises(InputError, match="unknown licence ''"):
        spdx.names([""])
    with pytest.raises(InputError, match="expected single names"):
        spdx.names(["MIT OR CC0-1.0"])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    "xmp",
    [
        packet(f'<cc:license rdf:resource="{BY}"/>'),
        packet("", f'xmpRights:WebStatement="{BY}"'),
        packet(f"<xmpRights:WebStatement>{BY}</xmpRights:WebStatement>"),
        packet(f'<dc:rights><rdf:Alt>\n <rdf:li xml:lang="x-default">{BY}</rdf:li></rdf:Alt></dc:rights>'),
        packet('<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">CC-BY-4.0</rdf:li></rdf:Alt></dc:rights>'),
    ],
)
def test_licences_in_xmp(picture, format, xmp):
    assert embedded(with_xmp(picture(1), format, xmp))["licence"] == "CC-BY-4.0"


def test_text_that_is_no_licence_is_kept_as_rights(picture):
    text = "&#169; Ann &amp; Bob; all rights &lt;reserved&gt;"
    inner = f'<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></dc:rights>'
    inner += "<dc:creator><rdf:Seq><rdf:li>Ann</rdf:li></rdf:Seq></dc:creator>"
    assert embedded(with_xmp(picture(1), "JPEG", packet(inner))) == {
        "rights": "© Ann & Bob; all rights <reserved>",
        "author": "Ann",
    }


def test_two_different_licences_in_a_file_are_none(picture):
    xmp = packet(
        f'<cc:license rdf:resource="https://creativecommons.org/licenses/by-nc/4.0/"/><dc:rights>{BY}</dc:rights>'
    )
    found = embedded(with_xmp(picture(1), "JPEG", xmp))
    assert "licence" not in found and "by-nc" in found["rights"] and BY in found["rights"]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_copyright_in_exif(picture, format):
    found = embedded(with_exif(picture(1), format, copyright="MIT", artist="Ann"))
    assert found == {"rights": "MIT", "author": "Ann"}  # an institute, and not the licence
    assert embedded(with_exif(picture(1), format, copyright=BY))["licence"] == "CC-BY-4.0"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8 no image",
        b"<rdf:RDF" + b"<" * 10**6,
        b"<rdf:RDF" + b"<dc:rights" + b" " * 200_000 + b"</rdf:RDF>",
        b"<rdf:RDF" + b"<dc:rights>" * 20_000 + b"</rdf:RDF>",
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><rdf:RDF><dc:rights>&b;</dc:rights></rdf:RDF>',
    ],
)
def test_files_of_strangers_cost_little_and_expand_nothing(data):
    assert embedded(data).get("rights", "&b;") == "&b;"


def test_sidecars():
    assert of_sidecar(b"SPDX-FileCopyrightText: 2020 Ann\nSPDX-License-Identifier: cc-by-4.0 OR mit\n") == {
        "licence": "CC-BY-4.0 OR MIT",
        "author": "2020 Ann",
    }
    two = of_sidecar(b"SPDX-License-Identifier: MIT OR CC0-1.0\r\nSPDX-License-Identifier: CC-BY-4.0\r\n")
    assert two["licence"] == "(MIT OR CC0-1.0) AND CC-BY-4.0"
    assert of_sidecar(b"SPDX-FileCopyrightText: Ann") == {} == of_sidecar(b"\xff\0\xfe")


def test_reuse_toml():
    rules = b"""
version = 1
[[annotations]]
path = "**"
SPDX-License-Identifier = "CC0-1.0"
[[annotations]]
path = ["a/*.jpg", "b.png"]
SPDX-License-Identifier = "CC-BY-4.0"
SPDX-FileCopyrightText = ["2020 Ann", "2021 Bob"]
"""
    look_up = of_reuse(rules, "REUSE.toml")
    assert look_up("c/d/e.png")["licence"] == "CC0-1.0"
    assert look_up("a/x.jpg") == {"licence": "CC-BY-4.0", "author": "2020 Ann; 2021 Bob"}
    assert look_up("a/b/x.jpg")["licence"] == "CC0-1.0" and look_up("b.png")["licence"] == "CC-BY-4.0"
    for damaged in (b"\xff", b"a = ", b"annotations = 3", b"[[annotations]]\npath = 3"):
        with pytest.raises(InputError, match=r"REUSE.toml: not a REUSE.toml"):
            of_reuse(damaged, "REUSE.toml")


@pytest.fixture
def photos(folder, picture):
    """A photo per source of a licence: ledger, sidecar, REUSE.toml, XMP, words alone, nothing."""
    xmp = packet(f'<cc:license rdf:resource="{BY}"/>')
    root = folder(
        "photos",
        {
            "in_ledger.jpg": with_xmp(picture(1), "JPEG", xmp),
            "sub/by_sidecar.jpg": with_xmp(picture(2), "JPEG", xmp),
            "by_itself.jpg": with_xmp(picture(3), "JPEG", xmp),
            "reuse/by_rule.jpg": with_xmp(picture(4), "JPEG", xmp),
            "words.jpg": with_exif(picture(5), copyright="Ann, all rights reserved"),
            "silent.png": picture(6),
            "sub/by_sidecar.jpg.license": b"SPDX-License-Identifier: CC-BY-SA-4.0\nSPDX-FileCopyrightText: Bob\n",
            "in_ledger.jpg.license": b"SPDX-License-Identifier: MIT\n",
            "REUSE.toml": b'[[annotations]]\npath = "reuse/**"\nSPDX-License-Identifier = "CC-BY-NC-4.0"\n',
        },
    )
    row = {"file": "in_ledger.jpg", "licence": "CC0-1.0", "author": "me", "source": "here"}
    row["sha256"] = sha256(root / "in_ledger.jpg")
    silent = {"file": "silent.png", "licence": "NOASSERTION", "sha256": sha256(root / "silent.png")}
    (root / "ledger.json").write_text(json.dumps({"schema": 1, "images": [row, silent]}), encoding="utf-8")
    return root


def test_the_ledger_comes_first_then_reuse_then_the_file_itself(photos):
    found = licences(open_images(photos))
    assert {row["key"]: row["licence"] for row in found.rows} == {
        "in_ledger": "CC0-1.0",
        "sub/by_sidecar": "CC-BY-SA-4.0",
        "reuse/by_rule": "CC-BY-NC-4.0",
        "by_itself": "CC-BY-4.0",
    }
    assert found.unlicensed == ("silent", "words")
    silent, words = found.unasserted
    assert silent == {
        "key": "silent",
        "file": "silent.png",
        "sha256": sha256(photos / "silent.png"),
        "licence": "NOASSERTION",
    }
    assert words["rights"] == "Ann, all rights reserved" and words["licence"] == "NOASSERTION"


def test_a_zip_says_what_the_folder_says(photos, tmp_path):
    (photos / "ledger.json").unlink()
    expected = licences(open_images(photos))
    packed = shutil.make_archive(str(tmp_path / "inside"), "zip", photos)
    found = licences(open_images(packed))
    assert sorted((r["key"], r["licence"]) for r in found.rows) == sorted(
        (r["key"], r["licence"]) for r in expected.rows
    )
    assert found.unlicensed == expected.unlicensed


def test_a_ledger_that_was_written_says_the_same_when_it_is_read(photos, picture, folder):
    found = licences(open_images(photos))
    for file in photos.rglob("*"):
        if file.suffix in (".license", ".toml"):
            file.unlink()
    (photos / "ledger.json").write_bytes(write_ledger(ledger_rows(found.header())))
    again = licences(open_images(photos))
    assert {row["key"]: row["licence"] for row in again.rows} == {row["key"]: row["licence"] for row in found.rows}
    assert again.unlicensed == found.unlicensed


def test_photos_under_other_licences_are_refused_by_name(photos):
    found = licences(open_images(photos))
    with pytest.raises(InputError) as caught:
        check_allowed(photos, found, ["cc0-1.0", "CC-BY-4.0"])
    named = "reuse/by_rule (CC-BY-NC-4.0), silent (no licence), sub/by_sidecar (CC-BY-SA-4.0), words (no licence)"
    assert f"4 of 6 photos are not under CC-BY-4.0 or CC0-1.0: {named}." in str(caught.value)
    check_allowed(photos, found, [])
    check_allowed(
        photos, found.without(["reuse/by_rule", "silent", "sub/by_sidecar", "words"]), ["CC0-1.0", "CC-BY-4.0"]
    )


def test_terms_that_restrict_are_named_once_per_licence():
    rows = [{"key": str(i), "licence": "CC-BY-NC-SA-4.0"} for i in range(5)]
    rows += [
        {"key": "free", "licence": "CC-BY-4.0"},
        {"key": "nd", "licence": "CC BY-ND 2.0"},
        {"key": "NSA", "licence": "NSAL"},
    ]
    lines = restricted(rows)
    assert len(lines) == 2
    assert "ND: no adaptations" in lines[0] and lines[0].endswith(": nd")
    assert lines[1].startswith("CC-BY-NC-SA-4.0") and lines[1].endswith(": 0, 1, 2 and 2 more")
    assert "NC: no commercial use; SA: results under the same licence" in lines[1]
