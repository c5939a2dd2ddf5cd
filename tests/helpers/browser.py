"""Drive a headless Chromium through its driver, by the protocol of W3C WebDriver: no package."""

import base64
import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

from helpers.processes import free_port

WAIT = 60


class Browser:
    """A window of a browser.

    Args:
        port: of its driver.
        width, height: of the window, in pixels of its own.
    """

    def __init__(self, port, width=1280, height=860):
        self.base = f'http://127.0.0.1:{port}'
        arguments = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
        size = dict(width=width, height=height, pixelRatio=1)
        options = dict(args=arguments, mobileEmulation=dict(deviceMetrics=size))
        wanted = dict(alwaysMatch={'goog:chromeOptions': options})
        self.base += '/session/' + self.ask('/session', capabilities=wanted)['sessionId']

    def ask(self, path, **given):
        """Return the value that the driver answers."""
        request = Request(self.base + path, json.dumps(given).encode(), method='POST')
        with urlopen(request, timeout=WAIT) as answer:
            return json.load(answer)['value']

    def open(self, url):
        self.ask('/url', url=url)

    def run(self, script, *values):
        """Return what a script returns; a promise is waited for."""
        return self.ask('/execute/sync', script=script, args=list(values))

    def wait(self, script, *values):
        """Wait until a script returns something, and return it."""
        ends = time.monotonic() + WAIT
        while time.monotonic() < ends:
            if value := self.run(script, *values):
                return value
            time.sleep(0.05)
        raise AssertionError(f'not within {WAIT} s: {script}')

    def choose_file(self, selector, path):
        """Give a file to an input, as a user does."""
        [element] = self.ask('/element', using='css selector', value=selector).values()
        self.ask(f'/element/{element}/value', text=str(path))

    def take_screenshot(self, path):
        with urlopen(self.base + '/screenshot', timeout=WAIT) as answer:
            path.write_bytes(base64.b64decode(json.load(answer)['value']))

    def close(self):
        with urlopen(Request(self.base, method='DELETE'), timeout=WAIT):
            pass


@contextmanager
def open_browser(width=1280, height=860):
    """Yield a browser; skip the test where there is none."""
    missing = [name for name in ('chromium', 'chromedriver') if shutil.which(name) is None]
    if missing:
        pytest.skip(f'{" and ".join(missing)} not installed: apt-get install chromium-driver')
    port = free_port()
    driver = subprocess.Popen(
        ['chromedriver', f'--port={port}'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        for line in driver.stdout:
            if b'started successfully' in line:
                break
        browser = Browser(port, width, height)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait(WAIT)
        driver.stdout.close()
